/* What the inner loops share. */

#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
typedef ptrdiff_t Size;

/* A function that is built twice, once for processors that have more: which one runs is found out when the module is
   loaded. Both give the same bits. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define TWICE(with) __attribute__((target_clones(with, "default")))
#else
#define TWICE(with)
#endif
#define WIDE TWICE("avx2")         /* registers of 32 bytes */
#define BITS TWICE("arch=haswell") /* shifts, and counts of zeros, in one instruction */
