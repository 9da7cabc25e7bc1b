// Scalars modulo the group's order L = 2^252 + 27742317777372353535851937790883648493, and their digits.
//
// Promises the one representative below L. Knows no point.
#pragma once
#include "platform.h"

CONSTANT u32 ORDER[9] = {0x5cf5d3edu, 0x5812631au, 0xa2f79cd6u, 0x14def9deu, 0x00000000u,
                         0x00000000u, 0x00000000u, 0x10000000u, 0x00000000u};
// floor(2^512 / L), for Barrett's reduction.
CONSTANT u32 ORDER_RECIPROCAL[9] = {0x0a2c131bu, 0xed9ce5a3u, 0x086329a7u, 0x2106215du, 0xffffffebu,
                                    0xffffffffu, 0xffffffffu, 0xffffffffu, 0x0000000fu};

// r = the sixteen words of h modulo L (Menezes et al., Handbook of Applied Cryptography, algorithm 14.42,
// with b = 2^32 and k = 8: the quotient is too small by at most two).
OUTLINE void scalar_reduce(u32 *r, const u32 *h) {
    u32 quotient[18];
    UNROLL for (int i = 0; i < 18; i++) quotient[i] = 0;
    UNROLL for (int i = 0; i < 9; i++) {
        u64 carry = 0;
        UNROLL for (int j = 0; j < 9; j++) {
            carry = (u64)h[7 + i] * ORDER_RECIPROCAL[j] + quotient[i + j] + (carry >> 32);
            quotient[i + j] = (u32)carry;
        }
        quotient[i + 9] = (u32)(carry >> 32);
    }
    u32 product[9];
    UNROLL for (int i = 0; i < 9; i++) product[i] = 0;
    UNROLL for (int i = 0; i < 9; i++) {
        u64 carry = 0;
        UNROLL for (int j = 0; j < 9 - i; j++) {
            carry = (u64)quotient[9 + i] * ORDER[j] + product[i + j] + (carry >> 32);
            product[i + j] = (u32)carry;
        }
    }
    u32 rest[9];
    u64 borrow = 0;
    UNROLL for (int i = 0; i < 9; i++) {
        u64 difference = (u64)h[i] - product[i] - borrow;
        rest[i] = (u32)difference;
        borrow = difference >> 63;
    }
    LOOP for (int round = 0; round < 2; round++) {
        u32 less[9];
        u64 below = 0;
        UNROLL for (int i = 0; i < 9; i++) {
            u64 difference = (u64)rest[i] - ORDER[i] - below;
            less[i] = (u32)difference;
            below = difference >> 63;
        }
        if (!below) {
            UNROLL for (int i = 0; i < 9; i++) rest[i] = less[i];
        }
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = rest[i];
}

// Reads a scalar; whether it is below L, as RFC 8032 §5.1.7 demands of s.
INLINE bool scalar_read(u32 *words, const u8 *bytes) {
    load_words(words, bytes);
    u64 borrow = 0;
    UNROLL for (int i = 0; i < 8; i++) {
        u64 difference = (u64)words[i] - ORDER[i] - borrow;
        borrow = difference >> 63;
    }
    return borrow != 0;
}

// The next signed digit of WINDOW bits, from the lowest on: in (-2^(WINDOW-1), 2^(WINDOW-1)]. The last digit
// leaves no carry, because the scalar is below 2^253.
template <int WINDOW>
INLINE int scalar_digit(const u32 *words, int i, u32 &carry) {
    const int per_word = 32 / WINDOW;
    int digit = (int)((words[i / per_word] >> (i % per_word * WINDOW)) & ((1u << WINDOW) - 1)) + (int)carry;
    carry = digit > (1 << (WINDOW - 1));
    return digit - (carry ? 1 << WINDOW : 0);
}
