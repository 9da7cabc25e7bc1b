// Arithmetic modulo p = 2^255 - 19 on eight words of 32 bits.
//
// Relies on the carry macros. Promises results below 2^256 that are right modulo p for every input below
// 2^256; only `field_canonical` gives the one representative below p. 2^256 = 38 modulo p, so whatever
// overflows eight words comes back times 38. Not constant-time: verification handles no secret. Knows no
// curve.
#pragma once
#include "platform.h"

// A number below 2^256, least significant word first; aligned so that the device moves four words at once.
struct alignas(16) Field {
    u32 word[8];
};

INLINE void field_set(Field &r, u32 value) {
    UNROLL for (int i = 0; i < 8; i++) r.word[i] = 0;
    r.word[0] = value;
}

// r = the sixteen words of t, modulo p.
//
// Products with 38 are summed in two rows, of even and of odd words, so that each row is one carry chain:
// a multiply-add of 32 bits fills two words.
INLINE void field_fold(Field &r, const u32 *t) {
    CARRY_FLAG
    u32 even[9], odd[10];
    UNROLL for (int i = 0; i < 8; i++) even[i] = t[i];
    even[8] = 0;
    UNROLL for (int i = 0; i < 10; i++) odd[i] = 0;
    MULADD_SET(even[0], even[1], t[8], 38u);
    MULADD_USE_SET(even[2], even[3], t[10], 38u);
    MULADD_USE_SET(even[4], even[5], t[12], 38u);
    MULADD_USE_SET(even[6], even[7], t[14], 38u);
    ADD_USE(even[8], 0u, 0u);
    MULADD_SET(odd[1], odd[2], t[9], 38u);
    MULADD_USE_SET(odd[3], odd[4], t[11], 38u);
    MULADD_USE_SET(odd[5], odd[6], t[13], 38u);
    MULADD_USE_SET(odd[7], odd[8], t[15], 38u);
    ADD_SET(even[1], even[1], odd[1]);
    UNROLL for (int i = 2; i < 8; i++) ADD_USE_SET(even[i], even[i], odd[i]);
    ADD_USE(even[8], even[8], odd[8]);
    // The sum is below 39 * 2^256, so the ninth word is at most 38 and comes back times 38 once more.
    u32 again = even[8] * 38u;
    ADD_SET(r.word[0], even[0], again);
    UNROLL for (int i = 1; i < 8; i++) ADD_USE_SET(r.word[i], even[i], 0u);
    u32 carry;
    ADD_USE(carry, 0u, 0u);
    // After that carry the lowest word is below 38 * 38, so that this addition has none.
    r.word[0] += carry * 38u;
}

// r = a * b. Rows of even and odd columns, each one carry chain.
INLINE void field_mul(Field &r, const Field &a, const Field &b) {
    CARRY_FLAG
    u32 even[16], odd[16], t[16];
    UNROLL for (int i = 0; i < 16; i++) even[i] = odd[i] = 0;
    UNROLL for (int i = 0; i < 8; i++) {
        UNROLL for (int parity = 0; parity < 2; parity++) {
            u32 *row = parity ? odd : even;
            const int first = (i + parity) & 1;
            UNROLL for (int j = first; j < 8; j += 2) {
                if (j == first) {
                    MULADD_SET(row[i + j], row[i + j + 1], a.word[i], b.word[j]);
                } else {
                    MULADD_USE_SET(row[i + j], row[i + j + 1], a.word[i], b.word[j]);
                }
            }
            if (i + first + 8 < 16) ADD_USE(row[i + first + 8], row[i + first + 8], 0u);
        }
    }
    t[0] = even[0];
    ADD_SET(t[1], even[1], odd[1]);
    UNROLL for (int i = 2; i < 15; i++) ADD_USE_SET(t[i], even[i], odd[i]);
    ADD_USE(t[15], even[15], odd[15]);
    field_fold(r, t);
}

// r = a * a: the products of different words once and doubled, then the squares of the words.
INLINE void field_square(Field &r, const Field &a) {
    CARRY_FLAG
    u32 even[16], odd[16], t[16];
    UNROLL for (int i = 0; i < 16; i++) even[i] = odd[i] = 0;
    UNROLL for (int i = 0; i < 7; i++) {
        UNROLL for (int parity = 0; parity < 2; parity++) {
            u32 *row = parity ? odd : even;
            // The first j above i for which i + j has this parity.
            const int first = i + 1 + ((1 + parity) & 1);
            if (first < 8) {
                int last = first;
                UNROLL for (int j = first; j < 8; j += 2) {
                    last = j;
                    if (j == first) {
                        MULADD_SET(row[i + j], row[i + j + 1], a.word[i], a.word[j]);
                    } else {
                        MULADD_USE_SET(row[i + j], row[i + j + 1], a.word[i], a.word[j]);
                    }
                }
                if (i + last + 2 < 16) ADD_USE(row[i + last + 2], row[i + last + 2], 0u);
            }
        }
    }
    t[0] = 0;
    ADD_SET(t[1], even[1], odd[1]);
    UNROLL for (int i = 2; i < 15; i++) ADD_USE_SET(t[i], even[i], odd[i]);
    ADD_USE(t[15], even[15], odd[15]);
    ADD_SET(t[1], t[1], t[1]);
    UNROLL for (int i = 2; i < 15; i++) ADD_USE_SET(t[i], t[i], t[i]);
    ADD_USE(t[15], t[15], t[15]);
    MULADD_SET(t[0], t[1], a.word[0], a.word[0]);
    UNROLL for (int i = 1; i < 8; i++) MULADD_USE_SET(t[2 * i], t[2 * i + 1], a.word[i], a.word[i]);
    field_fold(r, t);
}

INLINE void field_add(Field &r, const Field &a, const Field &b) {
    CARRY_FLAG
    u32 carry;
    ADD_SET(r.word[0], a.word[0], b.word[0]);
    UNROLL for (int i = 1; i < 8; i++) ADD_USE_SET(r.word[i], a.word[i], b.word[i]);
    ADD_USE(carry, 0u, 0u);
    ADD_SET(r.word[0], r.word[0], carry * 38u);
    UNROLL for (int i = 1; i < 8; i++) ADD_USE_SET(r.word[i], r.word[i], 0u);
    ADD_USE(carry, 0u, 0u);
    // A second carry leaves a lowest word below 38.
    r.word[0] += carry * 38u;
}

INLINE void field_sub(Field &r, const Field &a, const Field &b) {
    CARRY_FLAG
    u32 borrow;
    SUB_SET(r.word[0], a.word[0], b.word[0]);
    UNROLL for (int i = 1; i < 8; i++) SUB_USE_SET(r.word[i], a.word[i], b.word[i]);
    // All ones if there was a borrow, zero if not.
    SUB_USE(borrow, 0u, 0u);
    SUB_SET(r.word[0], r.word[0], borrow & 38u);
    UNROLL for (int i = 1; i < 8; i++) SUB_USE_SET(r.word[i], r.word[i], 0u);
    SUB_USE(borrow, 0u, 0u);
    // A second borrow leaves a lowest word within 38 of 2^32.
    r.word[0] -= borrow & 38u;
}

INLINE void field_negate(Field &r, const Field &a) {
    Field zero;
    field_set(zero, 0);
    field_sub(r, zero, a);
}

// r = the representative below p.
INLINE void field_canonical(Field &r) {
    CARRY_FLAG
    // Twice, because the first fold of bit 255 may set it again.
    LOOP for (int round = 0; round < 2; round++) {
        u32 fold = (r.word[7] >> 31) * 19u;
        r.word[7] &= 0x7fffffffu;
        ADD_SET(r.word[0], r.word[0], fold);
        UNROLL for (int i = 1; i < 7; i++) ADD_USE_SET(r.word[i], r.word[i], 0u);
        ADD_USE(r.word[7], r.word[7], 0u);
    }
    // Now below 2^255; p or more exactly if adding 19 reaches bit 255.
    u32 t[8];
    ADD_SET(t[0], r.word[0], 19u);
    UNROLL for (int i = 1; i < 7; i++) ADD_USE_SET(t[i], r.word[i], 0u);
    ADD_USE(t[7], r.word[7], 0u);
    if (t[7] >> 31) {
        t[7] &= 0x7fffffffu;
        UNROLL for (int i = 0; i < 8; i++) r.word[i] = t[i];
    }
}

INLINE bool field_is_zero(Field a) {
    field_canonical(a);
    u32 any = 0;
    UNROLL for (int i = 0; i < 8; i++) any |= a.word[i];
    return any == 0;
}

// r = a^(2^count).
OUTLINE void field_square_times(Field &r, const Field &a, int count) {
    Field t = a;
    LOOP for (int i = 0; i < count; i++) field_square(t, t);
    r = t;
}

// `field_mul` as a call, for where speed matters less than code size.
OUTLINE void field_mul_call(Field &r, const Field &a, const Field &b) {
    Field t;
    field_mul(t, a, b);
    r = t;
}

// z^(2^250 - 1) and z^11, from which inversion and square root go on (the usual chain of 11 products).
OUTLINE void field_power_chain(Field &z250, Field &z11, const Field &z) {
    Field a, b, c, d;
    field_square_times(a, z, 1);     // z^2
    field_square_times(b, a, 2);     // z^8
    field_mul_call(b, z, b);         // z^9
    field_mul_call(a, a, b);         // z^11
    z11 = a;
    field_square_times(c, a, 1);     // z^22
    field_mul_call(b, b, c);         // z^(2^5 - 1)
    field_square_times(c, b, 5);
    field_mul_call(b, c, b);         // z^(2^10 - 1)
    field_square_times(c, b, 10);
    field_mul_call(c, c, b);         // z^(2^20 - 1)
    field_square_times(d, c, 20);
    field_mul_call(c, d, c);         // z^(2^40 - 1)
    field_square_times(c, c, 10);
    field_mul_call(b, c, b);         // z^(2^50 - 1)
    field_square_times(c, b, 50);
    field_mul_call(c, c, b);         // z^(2^100 - 1)
    field_square_times(d, c, 100);
    field_mul_call(c, d, c);         // z^(2^200 - 1)
    field_square_times(c, c, 50);
    field_mul_call(z250, c, b);      // z^(2^250 - 1)
}

// r = z^(p - 2): the inverse, or zero for zero.
OUTLINE void field_invert(Field &r, const Field &z) {
    Field t, z11;
    field_power_chain(t, z11, z);
    field_square_times(t, t, 5);
    field_mul_call(r, t, z11);
}

// r = z^((p - 5) / 8), for square roots (RFC 8032 §5.1.3).
OUTLINE void field_power_root(Field &r, const Field &z) {
    Field t, z11;
    field_power_chain(t, z11, z);
    field_square_times(t, t, 2);
    field_mul_call(r, t, z);
}

// Inverts `count` numbers that are not zero, at most eight, `stride` apart, with one inversion (Montgomery).
OUTLINE void field_invert_many(Field *z, int count, int stride) {
    Field before[8], inverse;
    Field product = z[0];
    LOOP for (int i = 1; i < count; i++) {
        before[i] = product;
        field_mul_call(product, product, z[i * stride]);
    }
    field_invert(inverse, product);
    LOOP for (int i = count - 1; i > 0; i--) {
        Field one;
        field_mul_call(one, inverse, before[i]);
        field_mul_call(inverse, inverse, z[i * stride]);
        z[i * stride] = one;
    }
    z[0] = inverse;
}
