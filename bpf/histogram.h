/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index of the latency bucket of a duration: four buckets to an octave, at 2^(k/4), the first below 64 ns, the last
 * without a bound. tracer/histogram.py holds the same thresholds.
 */
#define BUCKETS 128
#define FIRST_EXPONENT 6
#define FIRST_NS (1ULL << FIRST_EXPONENT)
#define LAST_NS (92682ULL << 21) /* about 2^37.5: where the last bucket begins */

static __always_inline u64 bucket_of(u64 ns)
{
	u64 high = ns >> FIRST_EXPONENT, exponent = 0, mantissa, index;

	/* One test for both ends. */
	if (unlikely(ns - FIRST_NS >= LAST_NS - FIRST_NS))
		return ns < FIRST_NS ? 0 : BUCKETS - 1;
	STEP(unlikely(high >= 1 << 16), high >>= 16; exponent += 16);
	STEP(unlikely(high >= 1 << 8), high >>= 8; exponent += 8);
	STEP(high >= 1 << 4, high >>= 4; exponent += 4);
	STEP(high >= 1 << 2, high >>= 2; exponent += 2);
	STEP(high >= 1 << 1, exponent++);
	mantissa = (ns << 10) >> exponent; /* in [2^16, 2^17) */
	index = 1 + 4 * exponent;
	STEP(mantissa >= 77936, index++; STEP(mantissa >= 92682, index++; STEP(mantissa >= 110218, index++)));
	return bounded(index, BUCKETS - 1);
}
