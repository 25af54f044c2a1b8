/* LZW as TIFF has it: TIFF 6.0, section 13. Only what libtiff reads without a complaint is decoded here. */

#include <string.h>
#include "_inner.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "imagecodecs takes the place of this on machines of the other byte order"
#endif

#define CLEAR 256
#define END 257
#define FIRST 258 /* code of the first string that is not a single byte */
#define CODES 4096
#define STEP ((Size)sizeof(uint64_t)) /* bytes copied at a time: most strings are shorter */

/* Bytes of a string; those behind it, up to the end of the output, are written anew by the next ones. */
INLINE void copy(uint8_t *to, const uint8_t *from, Size length, const uint8_t *end)
{
    uint64_t step;
    if (end - to >= length + STEP)
        for (Size done = 0; done < length; done += STEP)
            memcpy(&step, from + done, STEP), memcpy(to + done, &step, STEP); /* both may overlap */
    else
        memcpy(to, from, length);
}

/* At least 32 bits, or all that are left. */
INLINE void fill(uint64_t *bits, int *have, const uint8_t **from, const uint8_t *stop)
{
    if (stop - *from >= 8) {
        uint64_t next;
        memcpy(&next, *from, 8);
        next = __builtin_bswap64(next) >> 32 << 32;
        *bits |= next >> *have;
        *from += 4;
        *have += 32;
    } else
        for (; *have <= 56 && *from < stop; *have += 8)
            *bits |= (uint64_t) * (*from)++ << (56 - *have);
}

BITS static int decode(const uint8_t *data, Size size, uint8_t *out, Size count)
{
    /* Every string but single bytes has stood in the output before: where, and how long it is, is all there is to know.
       Single bytes stand before the output, as it were. */
    uint32_t at[CODES];
    uint16_t lengths[CODES]; /* a string has one byte more than an older one */
    if (count >= INT32_MAX)
        return 0;
    const uint8_t *from = data, *stop = data + size, *end = out + count;
    uint8_t *to = out, *before = NULL; /* before: the string of the code before */
    uint64_t bits = 0;                 /* those that come next, from the highest on */
    int have = 0, width = 9, next = -1; /* next: code of the next string; none before the first clear */
    while (to < end) {
        if (have < width)
            fill(&bits, &have, &from, stop);
        if (have < width)
            return 0;
        int code = (int)(bits >> (64 - width));
        bits <<= width;
        have -= width;
        if (code < CLEAR) {
            if (next < 0)
                return 0;
            if (before) {
                if (next == CODES)
                    return 0;
                at[next] = (uint32_t)(before - out);
                lengths[next] = (uint16_t)(to - before + 1);
                next++;
                width += next == (1 << width) - 1 && width < 12;
            }
            before = to;
            *to++ = (uint8_t)code;
            continue;
        }
        if (code == CLEAR) {
            width = 9;
            next = FIRST;
            before = NULL;
            continue;
        }
        if (code == END || !before || code > next || next == CODES)
            return 0;
        at[next] = (uint32_t)(before - out);
        lengths[next] = (uint16_t)(to - before + 1);
        Size length = lengths[code];
        const uint8_t *string = out + at[code];
        if (length > end - to)
            length = end - to;
        if (code == next) /* its last byte is the first of itself */
            for (Size i = 0; i < length; i++)
                to[i] = string[i];
        else
            copy(to, string, length, end);
        next++;
        width += next == (1 << width) - 1 && width < 12;
        before = to;
        to += length;
    }
    return 1;
}

/* Fills ``out``; 0 where the data end before it is full, or are nothing that an encoder writes. */
int lzw(const uint8_t *data, Size size, uint8_t *out, Size count)
{
    return decode(data, size, out, count); /* what is built twice would be seen by other libraries */
}
