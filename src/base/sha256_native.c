/* SHA-256 with the x86 SHA extensions, some fifteen times as fast as portable code: image layers are
 * hundreds of megabytes and hashed twice. Other machines take the portable way. */
#include "base/sha256_blocks.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

bool sha256_has_native(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_SHA))
        return false;
    return __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

/* The instructions want the state as ABEF and CDGH. They do two rounds at a time with the
 * lower half of `sum`; a group is four rounds. */
__attribute__((target("sha,sse4.1,ssse3"))) void
sha256_blocks_native(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i *constants = (const __m128i *)sha256_round_constants;
    __m128i dcba = _mm_loadu_si128((const __m128i *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; count > 0; count--, blocks += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i word;
            if (i < 4) {
                word = _mm_loadu_si128((const __m128i *)(blocks + 16 * i));
                word = _mm_shuffle_epi8(word, big_endian);
            } else {
                const __m128i before = w[(i + 3) & 3];
                word = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                word = _mm_add_epi32(word, _mm_alignr_epi8(before, w[(i + 2) & 3], 4));
                word = _mm_sha256msg2_epu32(word, before);
            }
            w[i & 3] = word;
            __m128i sum = _mm_add_epi32(word, _mm_loadu_si128(constants + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#else

bool sha256_has_native(void)
{
    return false;
}

void sha256_blocks_native(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    (void)state;
    (void)blocks;
    (void)count;
}

#endif
