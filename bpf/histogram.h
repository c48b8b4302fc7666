/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index of the latency bucket of a duration: four buckets to an octave, at 2^(k/4), the first below 64 ns, the last
 * without a bound. tracer/model/histogram.py holds the same thresholds.
 */
#define FIRST_EXPONENT 6
#define LAST_NS (92682ULL << 21) /* about 2^37.5: where the last bucket begins */

/* Arranged for the fewest instructions between 1 and 16 us, which most calls take that wait for nothing. */
static __always_inline u64 bucket_of(u64 ns)
{
	u64 high = ns >> FIRST_EXPONENT, exponent = 0, mantissa, index;

	if (unlikely(!high))
		return 0;
	if (unlikely(high >= 1 << 8)) {
		if (ns >= LAST_NS)
			return BUCKETS - 1;
		STEP(high >= 1 << 16, high >>= 16; exponent += 16);
		STEP(high >= 1 << 8, high >>= 8; exponent += 8);
	}
	STEP(high >= 1 << 4, high >>= 4; exponent += 4);
	STEP(high >= 1 << 2, high >>= 2; exponent += 2);
	STEP(high >= 1 << 1, exponent++);
	mantissa = (ns << 10) >> exponent; /* in [2^16, 2^17) */
	index = 1 + 4 * exponent;
	if (mantissa >= 92682) {
		index += 2;
		STEP(mantissa >= 110218, index++);
	} else {
		STEP(mantissa >= 77936, index++);
	}
	return bounded(index, BUCKETS - 1);
}
