/* The Rice code of FITS, as CFITSIO writes it: FITS standard 4.0, section 10.4.1. What CFITSIO refuses is refused. */

#include <string.h>
#include "_inner.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "numpy takes the place of this on machines of the other byte order"
#endif


typedef struct {
    uint64_t bits;           /* those that come next, from the highest on; zeros behind them */
    int have;                /* how many */
    Size beyond;             /* how many bits were taken from behind the end */
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

/* -- two tiles at a time ------------------------------------------------------------------------------------------

   Each number waits for the one before it in its tile, and not for those of the other tile. What is decoded so are
   pairs of numbers that 57 bits hold, with 8 bytes or more behind where they begin; the rest is left to the others. */

#define HELD 57 /* bits that come with one load, wherever they begin */

/* Bits from a place on; ``place`` counts bits from ``data``. */
INLINE uint64_t bits_at(const uint8_t *data, uint64_t place)
{
    uint64_t bits;
    memcpy(&bits, data + (place >> 3), 8);
    return __builtin_bswap64(bits) << (place & 7);
}

/* One number; ``bits`` and ``place`` go on behind it. What is taken where no bits are left shows by ``place``. */
INLINE uint32_t take_one(uint64_t *bits, uint64_t *place, int code)
{
    int zeros = __builtin_clzll(*bits | 1);
    uint64_t rest = *bits << zeros; /* with the one in front */
    *bits = rest << (code + 1);
    *place += (uint64_t)(zeros + (code + 1));
    return unfolded(((uint32_t)zeros << code) + (uint32_t)(rest >> (63 - code)) - (UINT32_C(1) << code));
}

/* The same for reading on up to the end. */
INLINE Bits bits_from(const uint8_t *data, const uint8_t *end, uint64_t place)
{
    Bits b = {0, 0, 0, data + (place >> 3), end};
    fill(&b);
    next(&b, (int)(place & 7));
    return b;
}

/* Pairs of numbers that can be taken without a look at the end. */
INLINE Size pairs_before(const uint8_t *data, const uint8_t *end, uint64_t place)
{
    return (8 * (end - data - 8) - (Size)place) / HELD;
}

#define RICE(name, type, code_bits, plain)                                                                      \
    typedef struct {                                                                                            \
        const uint8_t *data, *end;                                                                              \
        uint64_t place; /* bits that are taken */                                                               \
        type value, *out;                                                                                       \
    } name;                                                                                                     \
    /* So many bits; zeros behind the end. */                                                                   \
    INLINE uint32_t name##_next(name *t, int count)                                                             \
    {                                                                                                           \
        uint64_t place = t->place;                                                                              \
        t->place += (uint64_t)count;                                                                            \
        if ((Size)(place >> 3) <= t->end - t->data - 8)                                                         \
            return (uint32_t)(bits_at(t->data, place) >> (64 - count));                                         \
        Bits b = bits_from(t->data, t->end, place);                                                             \
        return next(&b, count);                                                                                 \
    }                                                                                                           \
    /* The pixels of a block, or its last ones; 0 where the code is not sound. */                               \
    INLINE int name##_block(name *t, int code, Size i, Size stop)                                               \
    {                                                                                                           \
        Bits b = bits_from(t->data, t->end, t->place);                                                          \
        type value = t->value, *out = t->out;                                                                   \
        if (code < 0)                                                                                           \
            while (i < stop)                                                                                    \
                out[i++] = value;                                                                               \
        else if (code == plain)                                                                                 \
            while (i < stop) {                                                                                  \
                fill(&b);                                                                                       \
                value = (type)(value + unfolded(next(&b, 8 * sizeof(type))));                                   \
                out[i++] = value;                                                                               \
            }                                                                                                   \
        else if (code < plain)                                                                                  \
            while (i < stop) {                                                                                  \
                if (b.have < 32)                                                                                \
                    fill(&b);                                                                                   \
                int64_t high = zeros(&b);                                                                       \
                if (high < 0)                                                                                   \
                    return 0;                                                                                   \
                if (b.have < code)                                                                              \
                    fill(&b);                                                                                   \
                value = (type)(value + unfolded((uint32_t)high << code | next(&b, code)));                      \
                out[i++] = value;                                                                               \
            }                                                                                                   \
        else                                                                                                    \
            return 0;                                                                                           \
        t->value = value;                                                                                       \
        t->place = 8 * (uint64_t)(b.at - t->data) + (uint64_t)b.beyond - (uint64_t)b.have;                      \
        return b.have >= b.beyond;                                                                              \
    }                                                                                                           \
    /* Pixels of a block of both; where it stopped. */                                                          \
    INLINE Size name##_pair(name *first, name *second, int a_code, int b_code, Size i, Size stop)               \
    {                                                                                                           \
        const uint8_t *a_data = first->data, *b_data = second->data;                                            \
        uint64_t a = first->place, b = second->place;                                                           \
        Size pairs = (stop - i) / 2, others = pairs_before(a_data, first->end, a);                              \
        pairs = pairs < others ? pairs : others;                                                                \
        others = pairs_before(b_data, second->end, b);                                                          \
        pairs = pairs < others ? pairs : others;                                                                \
        type at = first->value, bt = second->value, *a_out = first->out + i, *b_out = second->out + i;          \
        Size n = 0;                                                                                             \
        for (; n < pairs; n++) {                                                                                \
            uint64_t a_bits = bits_at(a_data, a), b_bits = bits_at(b_data, b), a_next = a, b_next = b;          \
            type a_one = (type)(at + take_one(&a_bits, &a_next, a_code));                                       \
            type b_one = (type)(bt + take_one(&b_bits, &b_next, b_code));                                       \
            type a_two = (type)(a_one + take_one(&a_bits, &a_next, a_code));                                    \
            type b_two = (type)(b_one + take_one(&b_bits, &b_next, b_code));                                    \
            if (a_next - a > HELD || b_next - b > HELD)                                                         \
                break;                                                                                          \
            a_out[2 * n] = a_one, a_out[2 * n + 1] = at = a_two;                                                \
            b_out[2 * n] = b_one, b_out[2 * n + 1] = bt = b_two;                                                \
            a = a_next, b = b_next;                                                                             \
        }                                                                                                       \
        first->place = a, second->place = b;                                                                    \
        first->value = at, second->value = bt;                                                                  \
        return i + 2 * n;                                                                                       \
    }                                                                                                           \
    INLINE int name##_end(const name *t) /* CFITSIO refuses bytes that are left over */                         \
    {                                                                                                           \
        return 8 * (t->end - t->data) - (Size)t->place < 8;                                                     \
    }                                                                                                           \
    BITS static int name##_one(const uint8_t *data, Size size, void *out, Size count, Size block)               \
    {                                                                                                           \
        name t = {data, data + size, 0, 0, out};                                                                \
        t.value = (type)name##_next(&t, 8 * sizeof(type));                                                      \
        for (Size i = 0, stop; i < count; i = stop) {                                                           \
            stop = count - i < block ? count : i + block;                                                       \
            if (!name##_block(&t, (int)name##_next(&t, code_bits) - 1, i, stop))                                \
                return 0;                                                                                       \
        }                                                                                                       \
        return name##_end(&t);                                                                                  \
    }                                                                                                           \
    BITS static int name##_two(const uint8_t *data[2], const Size size[2], void *out[2], Size count, Size block) \
    {                                                                                                           \
        name a = {data[0], data[0] + size[0], 0, 0, out[0]}, b = {data[1], data[1] + size[1], 0, 0, out[1]};    \
        a.value = (type)name##_next(&a, 8 * sizeof(type));                                                      \
        b.value = (type)name##_next(&b, 8 * sizeof(type));                                                      \
        for (Size i = 0, stop; i < count; i = stop) {                                                           \
            stop = count - i < block ? count : i + block;                                                       \
            int a_code = (int)name##_next(&a, code_bits) - 1, b_code = (int)name##_next(&b, code_bits) - 1;     \
            Size at = i;                                                                                        \
            if (a_code >= 0 && b_code >= 0 && a_code < plain && b_code < plain)                                 \
                at = name##_pair(&a, &b, a_code, b_code, i, stop);                                              \
            if (at < stop && (!name##_block(&a, a_code, at, stop) || !name##_block(&b, b_code, at, stop)))      \
                return 0;                                                                                       \
        }                                                                                                       \
        return name##_end(&a) && name##_end(&b);                                                                \
    }
RICE(rice_8, uint8_t, 3, 6)
RICE(rice_16, uint16_t, 4, 14)
RICE(rice_32, uint32_t, 5, 25)

/* Decodes tiles of so many pixels each; how many were sound, from the first on. */
Size rice_tiles(char *out, Size itemsize, Size tiles, Size count, const uint8_t *data, Size length,
                const int64_t *starts, const int64_t *sizes, Size block)
{
    int (*one)(const uint8_t *, Size, void *, Size, Size) = itemsize == 1   ? rice_8_one
                                                            : itemsize == 2 ? rice_16_one
                                                                            : rice_32_one;
    int (*two)(const uint8_t *[2], const Size[2], void *[2], Size, Size) = itemsize == 1   ? rice_8_two
                                                                           : itemsize == 2 ? rice_16_two
                                                                                           : rice_32_two;
    for (Size tile = 0; tile < tiles; tile++) {
        const uint8_t *from[2];
        Size size[2], there = 0;
        void *to[2];
        for (; there < 2 && tile + there < tiles; there++) {
            int64_t start = starts[tile + there], bytes = sizes[tile + there];
            if (start < 0 || bytes < 0 || start > length || bytes > length - start)
                break;
            from[there] = data + start;
            size[there] = (Size)bytes;
            to[there] = out + (tile + there) * count * itemsize;
        }
        if (there == 2 && two(from, size, to, count, block)) /* else see which one is not sound */
            tile++;
        else if (!there || !one(from[0], size[0], to[0], count, block))
            return tile;
    }
    return tiles;
}
