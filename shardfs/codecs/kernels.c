/* The hot loops of the float codecs. Spec: docs/design/format/codecs.md. kernels_numpy.py gives the same bytes.
 *
 * A plain shared library for ctypes, which releases the interpreter lock around every call. Build with
 * -O3 -ffp-contract=off -fPIC -shared: a fused multiply-add would round a prediction otherwise than other machines do.
 * The file includes itself: once per word width (WIDTH), once per float type (FLOAT). */

#ifndef KERNELS_COMMON
#define KERNELS_COMMON

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "predictions need float arithmetic without excess precision"
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values are little-endian; numpy turns them where processors are not"
#endif

/* Chunks begin anywhere in a file, so nothing here is aligned. */
#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef uint8_t u8;
typedef uint16_t UNALIGNED u16;
typedef uint32_t UNALIGNED u32;
typedef uint64_t UNALIGNED u64;

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b) /* a and b are replaced before they are joined */

/* A second copy of the simple loops for processors with AVX2, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define VECTOR __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef VECTOR
#define VECTOR
#endif

/* Raised with every change of a signature or of what a function computes. */
int kernels_version(void) { return 2; }

/* Groups are filled by four lanes, each with a quarter of the values and counters of its own: one lane alone would
 * wait for its last store to the same counter. The order is that of a stable sort by key, n below 2^32. */
enum { LANES = 4, KEYS = 256 };
typedef uint32_t Places[LANES][KEYS]; /* counters of 8 bytes cost a seventh of the speed */

static void group_starts(const u8 *keys, size_t n, Places at) {
    size_t quarter = n / LANES;
    uint32_t next = 0;
    memset(at, 0, sizeof(Places));
    for (size_t i = 0; i < quarter; i++)
        for (int lane = 0; lane < LANES; lane++) at[lane][keys[lane * quarter + i]]++;
    for (size_t i = LANES * quarter; i < n; i++) at[LANES - 1][keys[i]]++;
    for (int key = 0; key < KEYS; key++)
        for (int lane = 0; lane < LANES; lane++) {
            uint32_t count = at[lane][key];
            at[lane][key] = next;
            next += count;
        }
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t exponent_of(uint32_t bits) { return bits >> 23 & 255; }

enum { RHO_UNIT = 256, RHO_LOWEST = -1, RHO_BINS = 640 }; /* from -1 to 1.5 */

/* The sum of the squares of how often each byte occurs among every `step`-th of the plane. */
uint64_t squares(const u8 *plane, size_t n, size_t step) {
    uint32_t counts[256] = {0};
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i += step) counts[plane[i]]++;
    for (int byte = 0; byte < 256; byte++) sum += (uint64_t)counts[byte] * counts[byte];
    return sum;
}

/* A bit per byte of the plane, lowest first: set where it is not zero; and the bytes that are not. Returns their
 * number. `others` has room for n + 1 bytes: each byte is stored before it is known whether it stays. */
size_t thin(const u8 *restrict plane, size_t n, u8 *restrict bitmap, u8 *restrict others) {
    size_t found = 0;
    for (size_t i = 0; i < n; i += 8) {
        size_t left = n - i < 8 ? n - i : 8;
        unsigned bits = 0;
        for (size_t j = 0; j < left; j++) {
            unsigned here = plane[i + j] != 0;
            others[found] = plane[i + j];
            found += here;
            bits |= here << j;
        }
        bitmap[i / 8] = (u8)bits;
    }
    return found;
}

/* The inverse of `thin`. Returns 0 and does nothing if the bitmap does not have `count` bits within the plane. */
int thicken(const u8 *restrict bitmap, const u8 *restrict others, size_t count, size_t n, u8 *restrict plane) {
    size_t set = 0, size = (n + 7) / 8;
    for (size_t i = 0; i < size; i++) set += (size_t)__builtin_popcount(bitmap[i]);
    if (set != count || (n % 8 && bitmap[size - 1] >> n % 8)) return 0;
    size_t used = 0;
    for (size_t i = 0; i < n; i += 8) {
        unsigned bits = bitmap[i / 8];
        if (i + 8 <= n && used + 8 <= count)
            for (int j = 0; j < 8; j++) {
                unsigned here = bits >> j & 1;
                plane[i + j] = others[used] & (u8)(0 - here);
                used += here;
            }
        else /* behind the last of the others, or near it */
            for (size_t j = 0; j < 8 && i + j < n; j++) plane[i + j] = bits >> j & 1 ? others[used++] : 0;
    }
    return 1;
}

#define WIDTH 8
#include "kernels.c"
#define WIDTH 16
#include "kernels.c"
#define WIDTH 32
#include "kernels.c"
#define WIDTH 64
#include "kernels.c"

/* How a float type becomes the bits of a float32 and back. Halves that are not normal numbers become 0, which is
 * never extrapolated. Results with exponents outside [LOWEST, HIGHEST] would overflow or lose bits on their way back. */
static inline uint32_t widen_f32(uint32_t v) { return v; }
static inline uint32_t narrow_f32(uint32_t r) { return r; }

static inline uint32_t widen_bf16(uint32_t v) { return v << 16; }
static inline uint32_t narrow_bf16(uint32_t r) { return (r + 0x8000u) >> 16; }

static inline uint32_t widen_f16(uint32_t v) {
    uint32_t magnitude = v & 0x7fff, normal = (magnitude >= 0x0400) & (magnitude < 0x7c00);
    return ((v & 0x8000) << 16 | ((magnitude << 13) + (112u << 23))) & (0u - normal);
}
static inline uint32_t narrow_f16(uint32_t r) {
    return (r >> 16 & 0x8000) | ((r & 0x7fffffff) - (112u << 23) + 0x1000u) >> 13;
}

#define FLOAT f32
#define BITS 32
#define LOWEST 1
#define HIGHEST 254
#define STEP_MARK(d) ((d) | 1)
#define STEP_SHIFT 1
#include "kernels.c"
#define FLOAT bf16
#define BITS 16
#define LOWEST 1
#define HIGHEST 253
#define STEP_MARK(d) (2 * (d) + 1)
#define STEP_SHIFT 0
#include "kernels.c"
#define FLOAT f16
#define BITS 16
#define LOWEST 113
#define HIGHEST 141
#define STEP_MARK(d) (2 * (d) + 1)
#define STEP_SHIFT 0
#include "kernels.c"

#elif defined(WIDTH)

/* ---- Per word width ---- */

#define WORD GLUE(u, WIDTH)
#define NAME(stem) GLUE(stem##_, WIDTH)
enum { NAME(BYTES) = WIDTH / 8 };

/* Nonzero if any value has its top bit set. */
VECTOR int NAME(any_sign)(const WORD *x, size_t n) {
    WORD all = 0;
    for (size_t i = 0; i < n; i++) all |= x[i];
    return all >> (WIDTH - 1) != 0;
}

/* Byte b of every value goes to planes[b * n ...]; with `rotate` the top bit moves to the bottom first. */
VECTOR void NAME(split)(const WORD *restrict x, size_t n, int rotate, u8 *restrict planes) {
    int up = rotate ? 1 : 0, down = rotate ? WIDTH - 1 : 0;
    WORD keep = rotate ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        WORD v = (WORD)(x[i] << up | (x[i] >> down & keep));
        for (int b = 0; b < NAME(BYTES); b++) planes[b * n + i] = (u8)(v >> 8 * b);
    }
}

VECTOR void NAME(join)(const u8 *const *planes, size_t n, int rotate, WORD *restrict x) {
    int down = rotate ? 1 : 0;
    const u8 *restrict plane[NAME(BYTES)];
    for (int b = 0; b < NAME(BYTES); b++) plane[b] = planes[b];
    for (size_t i = 0; i < n; i++) {
        WORD v = 0;
        for (int b = 0; b < NAME(BYTES); b++) v |= (WORD)((WORD)plane[b][i] << 8 * b);
        x[i] = (WORD)(v >> down | (WORD)((WORD)(v & down) << (WIDTH - 1)));
    }
}

/* keys[i] = bits [shift, shift + 8) of a value, under a mask. */
VECTOR void NAME(keys)(const WORD *restrict y, size_t n, int shift, int mask, u8 *restrict keys) {
    for (size_t i = 0; i < n; i++) keys[i] = (u8)(y[i] >> shift & mask);
}

/* The number line: with flip = all bits but the top one, floats in the order of their values; with 0, integers. */
static inline WORD NAME(line)(WORD v, WORD flip) { return (WORD)(v ^ ((WORD)(0 - (v >> (WIDTH - 1))) & flip)); }

/* Zig-zag: small differences of either sign become small numbers. */
static inline WORD NAME(fold)(WORD d) { return (WORD)(d << 1 ^ (WORD)(0 - (d >> (WIDTH - 1)))); }
static inline WORD NAME(unfold)(WORD z) { return (WORD)(z >> 1 ^ (WORD)(0 - (z & 1))); }

VECTOR void NAME(subtract)(const WORD *x, const WORD *y, size_t n, uint64_t flip, WORD *z) {
    for (size_t i = 0; i < n; i++)
        z[i] = NAME(fold)((WORD)(NAME(line)(x[i], (WORD)flip) - NAME(line)(y[i], (WORD)flip)));
}

/* The inverse of `subtract`; z and x may be the same memory. */
VECTOR void NAME(add)(const WORD *z, const WORD *y, size_t n, uint64_t flip, WORD *x) {
    for (size_t i = 0; i < n; i++)
        x[i] = NAME(line)((WORD)(NAME(line)(y[i], (WORD)flip) + NAME(unfold)(z[i])), (WORD)flip);
}

/* grouped = the values of z, sorted stably by their keys. */
void NAME(group)(const WORD *restrict z, const u8 *restrict keys, size_t n, WORD *restrict grouped) {
    Places at;
    group_starts(keys, n, at);
    size_t quarter = n / LANES;
    for (size_t i = 0; i < quarter; i++)
        for (int lane = 0; lane < LANES; lane++) {
            size_t from = lane * quarter + i;
            grouped[at[lane][keys[from]]++] = z[from];
        }
    for (size_t i = LANES * quarter; i < n; i++) grouped[at[LANES - 1][keys[i]]++] = z[i];
}

void NAME(ungroup)(const WORD *restrict grouped, const u8 *restrict keys, size_t n, WORD *restrict z) {
    Places at;
    group_starts(keys, n, at);
    size_t quarter = n / LANES;
    for (size_t i = 0; i < quarter; i++)
        for (int lane = 0; lane < LANES; lane++) {
            size_t to = lane * quarter + i;
            z[to] = grouped[at[lane][keys[to]]++];
        }
    for (size_t i = LANES * quarter; i < n; i++) z[i] = grouped[at[LANES - 1][keys[i]]++];
}

#undef NAME
#undef WORD
#undef WIDTH

#elif defined(FLOAT)

/* ---- Per float type: y is the version before, p the one before that ---- */

#define WORD GLUE(u, BITS)
#define NAME(stem) GLUE(stem##_, FLOAT)
#define LINE GLUE(line_, BITS)
#define FOLD GLUE(fold_, BITS)
#define UNFOLD GLUE(unfold_, BITS)
#define FLIP ((WORD)-1 >> 1)
#define TOP (BITS - 1)

/* Extrapolates y + rho * (y - p) in float32. Taken only where no step can meet a denormal, an infinity or a NaN,
 * which processors and their modes treat differently; y itself elsewhere. */
static inline WORD NAME(predict)(WORD y, WORD p, float rho) {
    uint32_t a = NAME(widen)(y), b = NAME(widen)(p);
    float step = float_of(a) - float_of(b);
    step = step * rho;
    uint32_t r = bits_of(float_of(a) + step), ea = exponent_of(a), eb = exponent_of(b), er = exponent_of(r);
    int sound = (ea >= 32) & (ea < 255) & (eb >= 1) & (eb < 255) & (er >= LOWEST) & (er <= HIGHEST);
    return (WORD)(sound ? NAME(narrow)(r) : y);
}

/* All bits set if the last step went down. Differences are turned to its direction, so that steps which went on and
 * steps which went back do not mix. */
static inline WORD NAME(down)(WORD y, WORD p) { return (WORD)(0 - ((WORD)(LINE(y, FLIP) - LINE(p, FLIP)) >> TOP)); }

VECTOR void NAME(step_subtract)(const WORD *x, const WORD *y, const WORD *p, size_t n, float rho, WORD *z) {
    for (size_t i = 0; i < n; i++) {
        WORD down = NAME(down)(y[i], p[i]), q = NAME(predict)(y[i], p[i], rho);
        WORD d = (WORD)(LINE(x[i], FLIP) - LINE(q, FLIP));
        z[i] = FOLD((WORD)((d ^ down) - down));
    }
}

/* The inverse of `step_subtract`; z and x may be the same memory. */
VECTOR void NAME(step_add)(const WORD *z, const WORD *y, const WORD *p, size_t n, float rho, WORD *x) {
    for (size_t i = 0; i < n; i++) {
        WORD down = NAME(down)(y[i], p[i]), q = NAME(predict)(y[i], p[i], rho);
        WORD d = (WORD)((UNFOLD(z[i]) ^ down) - down);
        x[i] = LINE((WORD)(LINE(q, FLIP) + d), FLIP);
    }
}

/* keys[i] = low bits of the exponent, and the length of the last step in bits. The length is the exponent of a float,
 * which compilers vectorise; counting leading zeros they do not. */
VECTOR void NAME(step_keys)(const WORD *restrict y, const WORD *restrict p, size_t n, u8 *restrict keys) {
    for (size_t i = 0; i < n; i++) {
        WORD d = (WORD)(LINE(y[i], FLIP) - LINE(p[i], FLIP));
        d = (WORD)(d ^ (WORD)(0 - (d >> TOP)));
        uint32_t length = exponent_of(bits_of((float)(int32_t)STEP_MARK(d))) - 127;
        keys[i] = (u8)((exponent_of(NAME(widen)(y[i])) & 15) << 4 | (length >> STEP_SHIFT & 15));
    }
}

/* The median of (x - y) / (y - p) over some 2 048 values, in units of 1 / RHO_UNIT; 0 if none of them moved.
 * Least squares would let a few large steps decide. */
int NAME(fit)(const WORD *x, const WORD *y, const WORD *p, size_t n) {
    size_t counts[RHO_BINS] = {0}, total = 0, below = 0;
    for (size_t i = 0; i < n; i += n >> 11 | 1) {
        float at = float_of(NAME(widen)(y[i]));
        float last = at - float_of(NAME(widen)(p[i])), next = float_of(NAME(widen)(x[i])) - at;
        float place = (next / last - RHO_LOWEST) * RHO_UNIT;
        if (last == 0 || place != place) continue;
        counts[place < 0 ? 0 : place >= RHO_BINS ? RHO_BINS - 1 : (int)place]++;
        total++;
    }
    for (int bin = 0; bin < RHO_BINS; bin++)
        if (2 * (below += counts[bin]) > total) return bin + RHO_LOWEST * RHO_UNIT;
    return 0;
}

#undef NAME
#undef FLOAT
#undef BITS
#undef WORD
#undef LINE
#undef FOLD
#undef UNFOLD
#undef FLIP
#undef TOP
#undef LOWEST
#undef HIGHEST
#undef STEP_MARK
#undef STEP_SHIFT

#endif
