/* The Rice code of FITS, as CFITSIO writes it: FITS standard 4.0, section 10.4.1. What CFITSIO refuses is refused. */

#include <string.h>
#include "_inner.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numpy takes the place of this on machines of the other byte order"
#endif


typedef struct {
    uint64_t bits;           /* those that come next, from the highest on; zeros behind them */
    int have;                /* how many */
    int beyond;              /* how many of them lie behind the end */
    const uint8_t *at, *end; /* bytes that are not taken yet */
} Bits;

static __attribute__((noinline)) void fill_at_end(Bits *b)
{
    while (b->have <= 56) {
        uint64_t byte = 0;
        if (b->at < b->end)
            byte = *b->at++;
        else
            b->beyond += 8;
        b->bits |= byte << (56 - b->have);
        b->have += 8;
    }
}

/* At least 56 bits are there behind this; behind the end they are zero. */
INLINE void fill(Bits *b)
{
    if (b->end - b->at >= 8) {
        uint64_t next;
        memcpy(&next, b->at, 8);
        next = __builtin_bswap64(next);
        int bytes = (63 - b->have) >> 3;
        b->bits |= (next & ~(~UINT64_C(0) >> 8 * bytes)) >> b->have;
        b->at += bytes;
        b->have += 8 * bytes;
    } else {
        Bits copy = *b;
        fill_at_end(&copy);
        *b = copy;
    }
}

INLINE uint32_t next(Bits *b, int count) /* up to 32, of those that are there */
{
    uint32_t value = (uint32_t)(b->bits >> 32 >> (32 - count));
    b->bits <<= count;
    b->have -= count;
    return value;
}

/* Zeros before the next one, which goes with them; -1 where the bytes end before it. */
INLINE int64_t zeros(Bits *b)
{
    int64_t count = 0;
    while (!b->bits) {
        if (b->beyond)
            return -1;
        count += b->have;
        b->have = 0;
        fill(b);
    }
    int more = __builtin_clzll(b->bits);
    b->bits = b->bits << more << 1;
    b->have -= more + 1;
    return count + more;
}

INLINE uint32_t unfolded(uint32_t value) /* 0, 1, 2, 3, ... stand for 0, -1, 1, -2, ... */
{
    return value >> 1 ^ (0 - (value & 1));
}

#define RICE(name, type, code_bits, plain)                                                                      \
    BITS static int name(const uint8_t *data, Size size, type *out, Size count, Size block)                     \
    {                                                                                                           \
        const int width = 8 * sizeof(type);                                                                     \
        Bits b = {0, 0, 0, data, data + size};                                                                  \
        fill(&b);                                                                                               \
        type value = (type)next(&b, width);                                                                     \
        for (Size i = 0; i < count;) {                                                                          \
            Size stop = count - i < block ? count : i + block;                                                  \
            fill(&b);                                                                                           \
            int code = (int)next(&b, code_bits) - 1;                                                            \
            if (code < 0)                                                                                       \
                while (i < stop)                                                                                \
                    out[i++] = value;                                                                           \
            else if (code == plain)                                                                             \
                while (i < stop) {                                                                              \
                    fill(&b);                                                                                   \
                    value = (type)(value + unfolded(next(&b, width)));                                          \
                    out[i++] = value;                                                                           \
                }                                                                                               \
            else if (code < plain)                                                                              \
                while (i < stop) {                                                                              \
                    if (b.have < 32)                                                                            \
                        fill(&b);                                                                               \
                    int64_t high = zeros(&b);                                                                   \
                    if (high < 0)                                                                               \
                        return 0;                                                                               \
                    if (b.have < code)                                                                          \
                        fill(&b);                                                                               \
                    value = (type)(value + unfolded((uint32_t)high << code | next(&b, code)));                  \
                    out[i++] = value;                                                                           \
                }                                                                                               \
            else                                                                                                \
                return 0;                                                                                       \
            if (b.have < b.beyond)                                                                              \
                return 0;                                                                                       \
        }                                                                                                       \
        return b.have - b.beyond + 8 * (b.end - b.at) < 8; /* CFITSIO refuses bytes that are left over */        \
    }
RICE(rice_8, uint8_t, 3, 6)
RICE(rice_16, uint16_t, 4, 14)
RICE(rice_32, uint32_t, 5, 25)

/* Decodes tiles of so many pixels each; how many were sound, from the first on. */
Size rice_tiles(char *out, Size itemsize, Size tiles, Size count, const uint8_t *data, Size length,
                const int64_t *starts, const int64_t *sizes, Size block)
{
    for (Size tile = 0; tile < tiles; tile++) {
        int64_t start = starts[tile], size = sizes[tile];
        if (start < 0 || size < 0 || start > length || size > length - start)
            return tile;
        char *to = out + tile * count * itemsize;
        const uint8_t *from = data + start;
        int good = itemsize == 1   ? rice_8(from, size, (uint8_t *)to, count, block)
                   : itemsize == 2 ? rice_16(from, size, (uint16_t *)to, count, block)
                                   : rice_32(from, size, (uint32_t *)to, count, block);
        if (!good)
            return tile;
    }
    return tiles;
}
