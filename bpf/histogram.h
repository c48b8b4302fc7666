/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Index of the latency bucket of a duration: four buckets to an octave, at 2^(k/4), the first below 64 ns, the last
 * without a bound. tracer/histogram.py holds the same thresholds.
 */
#define BUCKETS 128
#define FIRST_EXPONENT 6

static __always_inline u64 log2_u32(u64 v)
{
	u64 shift, r = 0;

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

static __always_inline u64 bucket_of(u64 ns)
{
	u64 exponent, mantissa, index;

	if (ns < (1ULL << FIRST_EXPONENT))
		return 0;
	/* Everything beyond 2^38 ns falls into the last bucket: 32 bits are left. */
	if (ns >> 38)
		return BUCKETS - 1;
	exponent = log2_u32(ns >> FIRST_EXPONENT);
	mantissa = (ns << 10) >> exponent; /* in [2^16, 2^17) */
	index = 1 + 4 * exponent + (mantissa >= 77936) + (mantissa >= 92682) + (mantissa >= 110218);
	if (index >= BUCKETS)
		index = BUCKETS - 1;
	return bounded(index, BUCKETS - 1);
}
