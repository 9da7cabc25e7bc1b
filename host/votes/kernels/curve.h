// Points of edwards25519: -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032 §5.1).
//
// Relies on field arithmetic. Promises formulas that hold for every pair of points of the curve, equal and
// small-order ones included (Hisil, Wong, Carter and Dawson 2008: complete, because d is no square), so that
// Z is never zero. Knows no signature.
#pragma once
#include "field.h"

CONSTANT Field CURVE_D = {{0x135978a3u, 0x75eb4dcau, 0x4141d8abu, 0x00700a4du, 0x7779e898u, 0x8cc74079u,
                           0x2b6ffe73u, 0x52036ceeu}};
CONSTANT Field CURVE_2D = {{0x26b2f159u, 0xebd69b94u, 0x8283b156u, 0x00e0149au, 0xeef3d130u, 0x198e80f2u,
                            0x56dffce7u, 0x2406d9dcu}};
CONSTANT Field ROOT_OF_MINUS_ONE = {{0x4a0ea0b0u, 0xc4ee1b27u, 0xad2fe478u, 0x2f431806u, 0x3dfbd7a7u,
                                     0x2b4d0099u, 0x4fc1df0bu, 0x2b832480u}};

// x = X / Z, y = Y / Z, T = X Y / Z.
struct Point {
    Field x, y, z, t;
};

// A point to be added: Y + X, Y - X, 2 Z and 2 d T.
struct Addend {
    Field sum, difference, z2, t2d;
};

// A point to be added, with Z = 1: what tables hold. 96 bytes.
struct TableEntry {
    Field sum, difference, t2d;
};

INLINE void point_identity(Point &r) {
    field_set(r.x, 0);
    field_set(r.y, 1);
    field_set(r.z, 1);
    field_set(r.t, 0);
}

INLINE void point_negate(Point &r) {
    field_negate(r.x, r.x);
    field_negate(r.t, r.t);
}

INLINE void addend_of(Addend &r, const Point &a) {
    field_add(r.sum, a.y, a.x);
    field_sub(r.difference, a.y, a.x);
    field_add(r.z2, a.z, a.z);
    field_mul(r.t2d, a.t, CURVE_2D);
}

// The last step of both formulas; T only where the next step needs it.
template <bool WITH_T>
INLINE void point_finish(Point &r, const Field &e, const Field &f, const Field &g, const Field &h) {
    field_mul(r.x, e, f);
    field_mul(r.y, g, h);
    field_mul(r.z, f, g);
    if (WITH_T) field_mul(r.t, e, h);
}

template <bool WITH_T>
INLINE void point_double(Point &r, const Point &a) {
    Field xx, yy, zz, e, f, g, h;
    field_square(xx, a.x);
    field_square(yy, a.y);
    field_square(zz, a.z);
    field_add(zz, zz, zz);
    field_add(e, a.x, a.y);
    field_square(e, e);
    field_add(h, xx, yy);
    field_sub(e, h, e);
    field_sub(g, xx, yy);
    field_add(f, zz, g);
    point_finish<WITH_T>(r, e, f, g, h);
}

OUTLINE void point_double_four_times(Point &p) {
    point_double<false>(p, p);
    point_double<false>(p, p);
    point_double<false>(p, p);
    point_double<true>(p, p);
}

// r = a + b, or a - b: negation swaps sum and difference and the sign of 2 d T.
INLINE void point_add_parts(Point &r, const Point &a, const Field &sum, const Field &difference,
                            const Field &t2d, const Field &z2, bool negative) {
    Field minus, plus, c, e, f, g, h;
    field_sub(minus, a.y, a.x);
    field_add(plus, a.y, a.x);
    field_mul(minus, minus, negative ? sum : difference);
    field_mul(plus, plus, negative ? difference : sum);
    field_mul(c, a.t, t2d);
    field_sub(e, plus, minus);
    field_add(h, plus, minus);
    if (negative) {
        field_add(f, z2, c);
        field_sub(g, z2, c);
    } else {
        field_sub(f, z2, c);
        field_add(g, z2, c);
    }
    point_finish<true>(r, e, f, g, h);
}

INLINE void point_add(Point &r, const Point &a, const Addend &b, bool negative) {
    Field z2;
    field_mul(z2, a.z, b.z2);
    point_add_parts(r, a, b.sum, b.difference, b.t2d, z2, negative);
}

INLINE void point_add_entry(Point &r, const Point &a, const TableEntry &b, bool negative) {
    Field z2;
    field_add(z2, a.z, a.z);
    point_add_parts(r, a, b.sum, b.difference, b.t2d, z2, negative);
}

// Adds the digit's multiple: table[k] is k + 1 times a point.
OUTLINE void point_add_digit(Point &p, const Addend *table, int digit) {
    if (digit != 0) point_add(p, p, table[(digit < 0 ? -digit : digit) - 1], digit < 0);
}

OUTLINE void point_add_table_digit(Point &p, const TableEntry *table, int digit) {
    if (digit != 0) point_add_entry(p, p, table[(digit < 0 ? -digit : digit) - 1], digit < 0);
}

// Reads a point (RFC 8032 §5.1.3); false if there is none. Like the rule it serves, it takes y above p and
// the sign of x = 0 as they come.
OUTLINE bool point_read(Point &r, const u8 *bytes) {
    Field y, u, v, v3, x, t, one, minus, plus;
    load_words(y.word, bytes);
    const u32 sign = y.word[7] >> 31;
    y.word[7] &= 0x7fffffffu;
    field_set(one, 1);
    field_square(t, y);
    field_sub(u, t, one);
    field_mul(v, t, CURVE_D);
    field_add(v, v, one);
    // x = u v^3 (u v^7)^((p - 5) / 8), up to a factor of the root of -1.
    field_square(v3, v);
    field_mul(v3, v3, v);
    field_square(x, v3);
    field_mul(x, x, v);
    field_mul(x, x, u);
    field_power_root(x, x);
    field_mul(x, x, v3);
    field_mul(x, x, u);
    field_square(t, x);
    field_mul(t, t, v);
    field_sub(minus, t, u);
    field_add(plus, t, u);
    if (!field_is_zero(minus)) {
        if (!field_is_zero(plus)) return false;
        field_mul(x, x, ROOT_OF_MINUS_ONE);
    }
    field_canonical(x);
    if ((x.word[0] & 1) != sign) field_negate(x, x);
    r.x = x;
    r.y = y;
    field_set(r.z, 1);
    field_mul(r.t, x, y);
    return true;
}

// The low 255 bits of every encoding of a point of small order, canonical or not: y = 0, 1, the two y of
// order 8, p - 1, p and p + 1; either sign.
CONSTANT u32 SMALL_ORDER[7][8] = {
    {0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u},
    {0x00000001u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u},
    {0x8f95e826u, 0xb027b2c2u, 0x89f4c345u, 0xf098eff2u, 0x05acdfd5u, 0x3933c6d3u, 0x880238b1u, 0x05fc536du},
    {0x706a17c7u, 0x4fd84d3du, 0x760b3cbau, 0x0f67100du, 0xfa53202au, 0xc6cc392cu, 0x77fdc74eu, 0x7a03ac92u},
    {0xffffffecu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0x7fffffffu},
    {0xffffffedu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0x7fffffffu},
    {0xffffffeeu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0x7fffffffu}};

INLINE bool is_small_order(const u8 *bytes) {
    u32 words[8];
    load_words(words, bytes);
    words[7] &= 0x7fffffffu;
    bool found = false;
    LOOP for (int k = 0; k < 7; k++) {
        u32 different = 0;
        UNROLL for (int i = 0; i < 8; i++) different |= words[i] ^ SMALL_ORDER[k][i];
        found |= different == 0;
    }
    return found;
}

// Whether the encoding of x = X / Z, y = Y / Z is these 32 bytes. `z_inverse` is 1 / Z.
INLINE bool point_is_encoded(const Field &point_x, const Field &point_y, const Field &z_inverse,
                             const u8 *bytes) {
    Field x, y;
    u32 words[8];
    field_mul(x, point_x, z_inverse);
    field_mul(y, point_y, z_inverse);
    field_canonical(x);
    field_canonical(y);
    y.word[7] |= (x.word[0] & 1) << 31;
    load_words(words, bytes);
    u32 different = 0;
    UNROLL for (int i = 0; i < 8; i++) different |= y.word[i] ^ words[i];
    return different == 0;
}
