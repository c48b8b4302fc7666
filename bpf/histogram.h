/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index of the latency bucket of a duration: four buckets to an octave, at 2^(k/4), the first below 64 ns, the last
 * without a bound. tracer/histogram.py holds the same thresholds.
 */
#define BUCKETS 128
#define FIRST_EXPONENT 6

static __always_inline u32 log2_u64(u64 v)
{
	u32 shift, r = 0;

	shift = (v > 0xFFFFFFFFULL) << 5;
	v >>= shift;
	r |= shift;
	shift = (v > 0xFFFF) << 4;
	v >>= shift;
	r |= shift;
	shift = (v > 0xFF) << 3;
	v >>= shift;
	r |= shift;
	shift = (v > 0xF) << 2;
	v >>= shift;
	r |= shift;
	shift = (v > 0x3) << 1;
	v >>= shift;
	r |= shift;
	return r | (v >> 1);
}

static __always_inline u32 bucket_of(u64 ns)
{
	u32 exponent, quarter, index;
	u64 mantissa;

	if (ns < (1ULL << FIRST_EXPONENT))
		return 0;
	/* Beyond 2^38 ns everything falls into the last bucket; the cap keeps the shift below from overflowing. */
	if (ns >> 38)
		return BUCKETS - 1;
	exponent = log2_u64(ns) - FIRST_EXPONENT;
	mantissa = (ns << 10) >> exponent; /* in [2^16, 2^17) */
	quarter = (mantissa >= 77936) + (mantissa >= 92682) + (mantissa >= 110218);
	index = 1 + 4 * exponent + quarter;
	if (index >= BUCKETS)
		index = BUCKETS - 1;
	return bounded(index, BUCKETS - 1);
}
