/* Reads one file in one pattern and prints the seconds that took, open included, and how many bytes that were.
 *
 *   patterns sequential FILE                   1 MiB at a time, first to last
 *   patterns threads FILE THREADS              the same, each thread its own part of the file
 *   patterns random FILE COUNT                 COUNT preads of 4 KiB at random pages
 *   patterns faults FILE THREADS COUNT         each thread touches COUNT random pages of one mapping
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCK = 1 << 20, MAX_THREADS = 64 };

static struct {
  int fd;
  off_t size;
  const unsigned char *map;
  long count;
} file;

typedef struct {
  pthread_t id;
  int number, of;
  long long bytes;
  unsigned long sum; /* what is read is used, so that no compiler leaves the reads out */
} Worker;

static void check(int good, const char *what) {
  if (!good) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
  }
}

static uint64_t next_random(uint64_t *state) { /* xorshift64 */
  *state ^= *state << 13;
  *state ^= *state >> 7;
  return *state ^= *state << 17;
}

static void *read_part(void *argument) {
  Worker *worker = argument;
  unsigned char *buffer = malloc(BLOCK);
  check(buffer != NULL, "malloc");
  off_t at = file.size / worker->of * worker->number / PAGE * PAGE;
  off_t end = worker->number + 1 == worker->of ? file.size : file.size / worker->of * (worker->number + 1) / PAGE * PAGE;
  while (at < end) {
    ssize_t got = pread(file.fd, buffer, end - at < BLOCK ? (size_t)(end - at) : BLOCK, at);
    check(got > 0, "pread");
    worker->sum += buffer[0];
    worker->bytes += got;
    at += got;
  }
  free(buffer);
  return NULL;
}

static void *read_random(void *argument) {
  Worker *worker = argument;
  unsigned char buffer[PAGE];
  uint64_t state = 88172645463325252u + (uint64_t)worker->number;
  for (long i = 0; i < file.count; i++) {
    ssize_t got = pread(file.fd, buffer, PAGE, (off_t)(next_random(&state) % (uint64_t)(file.size / PAGE)) * PAGE);
    check(got == PAGE, "pread");
    worker->bytes += got;
    worker->sum += buffer[0];
  }
  return NULL;
}

static void *touch_random(void *argument) {
  Worker *worker = argument;
  uint64_t state = 88172645463325252u + 7919u * (uint64_t)worker->number;
  for (long i = 0; i < file.count; i++)
    worker->sum += file.map[(next_random(&state) % (uint64_t)(file.size / PAGE)) * PAGE];
  worker->bytes = PAGE * file.count;
  return NULL;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const char *pattern = argv[1];
  int threads = 1;
  void *(*work)(void *) = read_part;
  if (!strcmp(pattern, "random") && argc == 4) {
    work = read_random;
    file.count = atol(argv[3]);
  } else if (!strcmp(pattern, "faults") && argc == 5) {
    work = touch_random;
    threads = atoi(argv[3]);
    file.count = atol(argv[4]);
  } else if (!strcmp(pattern, "threads") && argc == 4) {
    threads = atoi(argv[3]);
  } else if (strcmp(pattern, "sequential") || argc != 3) {
    return 2;
  }
  if (threads < 1 || threads > MAX_THREADS) return 2;
  double start = now();
  file.fd = open(argv[2], O_RDONLY | O_CLOEXEC);
  check(file.fd >= 0, argv[2]);
  struct stat status;
  check(!fstat(file.fd, &status), argv[2]);
  file.size = status.st_size;
  if (work == touch_random) {
    void *map = mmap(NULL, (size_t)file.size, PROT_READ, MAP_SHARED, file.fd, 0);
    check(map != MAP_FAILED, "mmap");
    file.map = map;
  }
  Worker workers[MAX_THREADS] = {0};
  unsigned long sum = 0;
  long long bytes = 0;
  for (int i = 0; i < threads; i++) {
    workers[i].number = i;
    workers[i].of = threads;
    errno = pthread_create(&workers[i].id, NULL, work, &workers[i]);
    check(!errno, "pthread_create");
  }
  for (int i = 0; i < threads; i++) {
    pthread_join(workers[i].id, NULL);
    sum += workers[i].sum;
    bytes += workers[i].bytes;
  }
  printf("%.9f %lld %lu\n", now() - start, bytes, sum);
  return 0;
}
