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

/* Chunks begin anywhere in a file, so nothing here is aligned. */
#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef uint8_t u8;
typedef uint16_t UNALIGNED u16;
typedef uint32_t UNALIGNED u32;
typedef uint64_t UNALIGNED u64;

#define JOIN_NAMES(a, b) a##_##b
#define NAME_OF(a, b) JOIN_NAMES(a, b)

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
int kernels_version(void) { return 1; }

/* Groups are filled by four lanes, each with a quarter of the values and counters of its own: one lane alone would
 * wait for its last store to the same counter. The order is that of a stable sort by key. */
enum { LANES = 4, KEYS = 256 };
typedef size_t Places[LANES][KEYS];

static void group_starts(const u8 *keys, size_t n, Places at) {
    size_t quarter = n / LANES, next = 0;
    memset(at, 0, sizeof(Places));
    for (size_t i = 0; i < quarter; i++)
        for (int lane = 0; lane < LANES; lane++) at[lane][keys[lane * quarter + i]]++;
    for (size_t i = LANES * quarter; i < n; i++) at[LANES - 1][keys[i]]++;
    for (int key = 0; key < KEYS; key++)
        for (int lane = 0; lane < LANES; lane++) {
            size_t count = at[lane][key];
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
#define WORD u32
#define LINE line_32
#define LOWEST 1
#define HIGHEST 254
#define STEP_MARK(d) ((d) | 1)
#define STEP_KEY(length, exponent) ((length) << 3 | ((exponent) & 7))
#include "kernels.c"
#define FLOAT bf16
#define WORD u16
#define LINE line_16
#define LOWEST 1
#define HIGHEST 253
#define STEP_MARK(d) (2 * (d) + 1)
#define STEP_KEY(length, exponent) ((length) << 4 | ((exponent) & 15))
#include "kernels.c"
#define FLOAT f16
#define WORD u16
#define LINE line_16
#define LOWEST 113
#define HIGHEST 141
#define STEP_MARK(d) (2 * (d) + 1)
#define STEP_KEY(length, exponent) ((length) << 4 | ((exponent) & 15))
#include "kernels.c"

#elif defined(WIDTH)

/* ---- Per word width ---- */

#define WORD NAME_OF_WIDTH(u, WIDTH)
#define NAME_OF_WIDTH(a, b) NAME_OF_WIDTH_(a, b)
#define NAME_OF_WIDTH_(a, b) a##b
#define NAME(stem) NAME_OF(stem, WIDTH)
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

static inline WORD NAME(undo)(WORD z, WORD q, WORD flip) {
    WORD d = (WORD)(z >> 1 ^ (WORD)(0 - (z & 1)));
    return NAME(line)((WORD)(NAME(line)(q, flip) + d), flip);
}

/* z = zig-zag of x - q on the number line. */
VECTOR void NAME(subtract)(const WORD *x, const WORD *q, size_t n, uint64_t flip, WORD *z) {
    for (size_t i = 0; i < n; i++) {
        WORD d = (WORD)(NAME(line)(x[i], (WORD)flip) - NAME(line)(q[i], (WORD)flip));
        z[i] = (WORD)(d << 1 ^ (WORD)(0 - (d >> (WIDTH - 1))));
    }
}

VECTOR void NAME(add)(const WORD *z, const WORD *q, size_t n, uint64_t flip, WORD *x) {
    for (size_t i = 0; i < n; i++) x[i] = NAME(undo)(z[i], q[i], (WORD)flip);
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

/* The inverse of `subtract` and `group`; q and x may be the same memory. */
void NAME(ungroup_add)(const WORD *grouped, const u8 *keys, const WORD *q, size_t n, uint64_t flip, WORD *x) {
    Places at;
    group_starts(keys, n, at);
    size_t quarter = n / LANES;
    for (size_t i = 0; i < quarter; i++)
        for (int lane = 0; lane < LANES; lane++) {
            size_t to = lane * quarter + i;
            x[to] = NAME(undo)(grouped[at[lane][keys[to]]++], q[to], (WORD)flip);
        }
    for (size_t i = LANES * quarter; i < n; i++)
        x[i] = NAME(undo)(grouped[at[LANES - 1][keys[i]]++], q[i], (WORD)flip);
}

#undef NAME
#undef WORD
#undef WIDTH

#elif defined(FLOAT)

/* ---- Per float type: y is the version before, p the one before that ---- */

#define NAME(stem) NAME_OF(stem, FLOAT)

/* Extrapolates y + rho * (y - p) in float32. Taken only where no step can meet a denormal, an infinity or a NaN,
 * which processors and their modes treat differently; y itself elsewhere. */
VECTOR void NAME(predict)(const WORD *restrict y, const WORD *restrict p, size_t n, float rho, WORD *restrict q) {
    for (size_t i = 0; i < n; i++) {
        uint32_t a = NAME(widen)(y[i]), b = NAME(widen)(p[i]);
        float step = float_of(a) - float_of(b);
        step = step * rho;
        uint32_t r = bits_of(float_of(a) + step), ea = exponent_of(a), eb = exponent_of(b), er = exponent_of(r);
        int sound = (ea >= 32) & (ea < 255) & (eb >= 1) & (eb < 255) & (er >= LOWEST) & (er <= HIGHEST);
        q[i] = (WORD)(sound ? NAME(narrow)(r) : y[i]);
    }
}

/* keys[i] = length in bits of the last step on the number line, and low bits of the exponent. The length is the
 * exponent of a float, which compilers vectorise; counting leading zeros they do not. */
VECTOR void NAME(step_keys)(const WORD *restrict y, const WORD *restrict p, size_t n, u8 *restrict keys) {
    const WORD flip = (WORD)((WORD)-1 >> 1);
    const int top = 8 * (int)sizeof(WORD) - 1;
    for (size_t i = 0; i < n; i++) {
        WORD d = (WORD)(LINE(y[i], flip) - LINE(p[i], flip));
        d = (WORD)(d ^ (WORD)(0 - (d >> top)));
        uint32_t length = exponent_of(bits_of((float)(int32_t)STEP_MARK(d))) - 127;
        keys[i] = (u8)STEP_KEY(length, exponent_of(NAME(widen)(y[i])));
    }
}

/* The rho that minimises the squared error of the prediction over every seventh value; 0 if there is none. */
double NAME(fit)(const WORD *x, const WORD *y, const WORD *p, size_t n) {
    double product = 0, square = 0;
    for (size_t i = 0; i < n; i += 7) {
        float at = float_of(NAME(widen)(y[i]));
        float last = at - float_of(NAME(widen)(p[i])), next = float_of(NAME(widen)(x[i])) - at;
        double both = (double)last * next, alone = (double)last * last;
        if (alone <= FLT_MAX && both <= FLT_MAX && both >= -FLT_MAX) {
            product += both;
            square += alone;
        }
    }
    return square > 0 ? product / square : 0;
}

#undef NAME
#undef FLOAT
#undef WORD
#undef LINE
#undef LOWEST
#undef HIGHEST
#undef STEP_MARK
#undef STEP_KEY

#endif
