// The one rule: whether a key signed a message, as `verify_strict` of ed25519-dalek decides it.
//
// Relies on points, scalars and SHA-512. Promises the verdict of that rule for every key, message and
// signature: s below L, neither R nor A of small order, A a point, and the encoding of s B - h A equal to R
// byte by byte. R needs no reading then: only the canonical encoding of a point can be equal. Promises that
// no verdict depends on another signature, also where inversions are shared. Knows no thread: what the
// kernels run is here, so that a host build tests all of it.
//
// Verification is cut in two, so that a group of threads shares one inversion: the first half gives the
// point s B - h A with its Z, the second half gets 1 / Z.
//
// A table of a point P for digits of WINDOW bits holds, for each digit i and each k from 1 to 2^(WINDOW-1),
// k * 2^(WINDOW * i) * P. With tables of -A and B no doubling is left.
#pragma once
#include "curve.h"
#include "sha512.h"

template <int WINDOW>
struct Table {
    static const int digits = 256 / WINDOW;
    static const int per_digit = 1 << (WINDOW - 1);
    static const int entries = digits * per_digit;
};

// What the first half leaves for the second. `possible` is false once a check has failed; Z is 1 then.
struct Half {
    Field x, y, z;
    bool possible;
};

INLINE void half_set(Half &half, const Point &p, bool possible) {
    half.x = p.x;
    half.y = p.y;
    half.z = p.z;
    half.possible = possible;
    // The formulas are complete, so that Z is not zero. Were it ever, it must not reach other votes through
    // the shared inversion.
    if (!possible || field_is_zero(half.z)) {
        field_set(half.z, 1);
        half.possible = false;
    }
}

// For any key. `base_row` holds 1 to 8 times B: the first row of its table for digits of four bits.
OUTLINE void verify_any_key(Half &half, const u8 *signature, const u8 *key, const u8 *message, int length,
                            const TableEntry *base_row) {
    u32 s[8], h[8];
    Point p, a;
    point_identity(p);
    if (!scalar_read(s, signature + 32) || is_small_order(signature) || is_small_order(key) ||
        !point_read(a, key)) {
        half_set(half, p, false);
        return;
    }
    challenge(h, signature, key, message, length);
    point_negate(a);
    Addend multiples[8];
    addend_of(multiples[0], a);
    LOOP for (int k = 1; k < 8; k++) {
        point_add(a, a, multiples[0], false);
        addend_of(multiples[k], a);
    }
    signed char h_digits[64], s_digits[64];
    u32 h_carry = 0, s_carry = 0;
    LOOP for (int i = 0; i < 64; i++) {
        h_digits[i] = (signed char)scalar_digit<4>(h, i, h_carry);
        s_digits[i] = (signed char)scalar_digit<4>(s, i, s_carry);
    }
    LOOP for (int i = 63; i >= 0; i--) {
        point_double_four_times(p);
        point_add_digit(p, multiples, h_digits[i]);
        point_add_table_digit(p, base_row, s_digits[i]);
    }
    half_set(half, p, true);
}

// For a key whose table was built; `key_table` is that of -A, `base_table` that of B.
template <int WINDOW>
INLINE void verify_known_key(Half &half, const u8 *signature, const u8 *key, const u8 *message, int length,
                             const TableEntry *key_table, const TableEntry *base_table) {
    u32 s[8], h[8], h_carry = 0, s_carry = 0;
    Point p;
    point_identity(p);
    if (!scalar_read(s, signature + 32) || is_small_order(signature)) {
        half_set(half, p, false);
        return;
    }
    challenge(h, signature, key, message, length);
    LOOP for (int i = 0; i < Table<WINDOW>::digits; i++) {
        const int row = i * Table<WINDOW>::per_digit;
        point_add_table_digit(p, key_table + row, scalar_digit<WINDOW>(h, i, h_carry));
        point_add_table_digit(p, base_table + row, scalar_digit<WINDOW>(s, i, s_carry));
    }
    half_set(half, p, true);
}

// The second half.
INLINE bool verify_finish(const Half &half, const Field &z_inverse, const u8 *signature) {
    return half.possible && point_is_encoded(half.x, half.y, z_inverse, signature);
}

// Builds the rows of one digit of a table; whether the key may have one: a point, and not of small order.
// Entries are made eight at a time, which share one inversion.
template <int WINDOW>
OUTLINE bool table_row(TableEntry *table, const u8 *key, int digit, bool negate) {
    Point p;
    if (is_small_order(key) || !point_read(p, key)) return false;
    if (negate) point_negate(p);
    LOOP for (int i = 0; i < digit * WINDOW / 4; i++) point_double_four_times(p);
    Addend step;
    addend_of(step, p);
    TableEntry *row = table + digit * Table<WINDOW>::per_digit;
    LOOP for (int from = 0; from < Table<WINDOW>::per_digit; from += 8) {
        Field x[8], y[8], z[8];
        LOOP for (int k = 0; k < 8; k++) {
            if (from + k > 0) point_add(p, p, step, false);
            x[k] = p.x;
            y[k] = p.y;
            z[k] = p.z;
        }
        field_invert_many(z, 8, 1);
        LOOP for (int k = 0; k < 8; k++) {
            TableEntry &entry = row[from + k];
            field_mul_call(x[k], x[k], z[k]);
            field_mul_call(y[k], y[k], z[k]);
            field_add(entry.sum, y[k], x[k]);
            field_sub(entry.difference, y[k], x[k]);
            field_mul_call(entry.t2d, x[k], y[k]);
            field_mul_call(entry.t2d, entry.t2d, CURVE_2D);
        }
    }
    return true;
}
