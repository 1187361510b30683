/* A link between two network namespaces: a delay, a rate and a queue that overflows, for packets of TUN devices.

       link NAMESPACE_A NAMESPACE_B DEVICE DELAY_US BITS_PER_S QUEUE_BYTES

   makes DEVICE in both namespaces and says "ready" on standard output. Packets of TCP are handed over as the sender's
   kernel made them, up to 64 KiB with the size of their segments in the header of virtio, so that a gigabit costs little of
   a processor while TCP still counts in segments. Ends with its standard input. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 65536 + 512, FRAME = 38 }; /* FRAME: Ethernet around each packet, the gap included */

struct packet {
    struct packet *next;
    int64_t due_ns;
    int size;
    char bytes[];
};

struct way {
    int from, to;
};

static int64_t delay_ns;
static double ns_per_byte;
static long queue_bytes;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int make_device(const char *space, const char *device)
{
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", space);
    int inside = open(path, O_RDONLY | O_CLOEXEC);
    if (inside < 0 || setns(inside, CLONE_NEWNET) < 0)
        die(path);
    close(inside);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) < 0 || ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
        die("/dev/net/tun");
    return tun;
}

static long wire_bytes(const char *bytes, int size)
{
    const struct virtio_net_hdr *header = (const void *)bytes;
    int data = size - (int)sizeof *header;
    int segments = header->gso_size ? (data - header->hdr_len + header->gso_size - 1) / header->gso_size : 1;
    return data + (segments - 1L) * header->hdr_len + (long)segments * FRAME;
}

static void *carry(void *argument)
{
    const struct way *way = argument;
    struct packet *first = NULL, **last = &first;
    int64_t free_ns = 0; /* when the last bit of what is queued has left */
    static __thread char bytes[LARGEST];
    for (;;) {
        int64_t now = now_ns();
        while (first && first->due_ns <= now) {
            struct packet *gone = first;
            if (write(way->to, gone->bytes, gone->size) < 0) {
                /* A full device drops packets, as a full switch does. */
            }
            if (!(first = gone->next))
                last = &first;
            free(gone);
        }
        struct timespec wait = {1, 0};
        if (first)
            wait = (struct timespec){0, first->due_ns - now};
        struct pollfd ready = {way->from, POLLIN, 0};
        if (ppoll(&ready, 1, &wait, NULL) <= 0)
            continue;
        int size = read(way->from, bytes, sizeof bytes);
        if (size <= (int)sizeof(struct virtio_net_hdr))
            continue;
        now = now_ns();
        if (free_ns < now)
            free_ns = now;
        if ((free_ns - now) / ns_per_byte > queue_bytes)
            continue;
        free_ns += (int64_t)(wire_bytes(bytes, size) * ns_per_byte);
        struct packet *taken = malloc(sizeof *taken + size);
        if (!taken)
            continue;
        *taken = (struct packet){NULL, free_ns + delay_ns, size};
        memcpy(taken->bytes, bytes, size);
        *last = taken;
        last = &taken->next;
    }
}

int main(int count, char **given)
{
    if (count != 7)
        return 2;
    delay_ns = atoll(given[4]) * 1000;
    ns_per_byte = 8e9 / atof(given[5]);
    queue_bytes = atol(given[6]);
    int a = make_device(given[1], given[3]), b = make_device(given[2], given[3]);
    struct way there = {a, b}, back = {b, a};
    pthread_t threads[2];
    if (pthread_create(&threads[0], NULL, carry, &there) || pthread_create(&threads[1], NULL, carry, &back))
        die("pthread_create");
    puts("ready");
    fflush(stdout);
    char end;
    while (read(0, &end, 1) > 0) {
    }
    return 0;
}
