// SHA-512 (FIPS 180-4) of R, A and the message, reduced to the scalar of RFC 8032 §5.1.7.
//
// Promises the digest for every message length. Knows no signature: it is given three byte strings.
#pragma once
#include "scalar.h"

CONSTANT u64 SHA512_K[80] = {
#include "sha512_constants.inc"
};

INLINE u64 rotate_right(u64 x, int count) { return (x >> count) | (x << (64 - count)); }

OUTLINE void sha512_block(u64 *state, const u64 *block) {
    u64 w[16];
    UNROLL for (int i = 0; i < 16; i++) w[i] = block[i];
    u64 a = state[0], b = state[1], c = state[2], d = state[3];
    u64 e = state[4], f = state[5], g = state[6], h = state[7];
    LOOP for (int part = 0; part < 5; part++) {
        UNROLL for (int i = 0; i < 16; i++) {
            if (part > 0) {
                u64 x = w[(i + 1) & 15], y = w[(i + 14) & 15];
                w[i] += (rotate_right(x, 1) ^ rotate_right(x, 8) ^ (x >> 7)) + w[(i + 9) & 15] +
                        (rotate_right(y, 19) ^ rotate_right(y, 61) ^ (y >> 6));
            }
            u64 t1 = h + (rotate_right(e, 14) ^ rotate_right(e, 18) ^ rotate_right(e, 41)) +
                     ((e & f) ^ (~e & g)) + SHA512_K[part * 16 + i] + w[i];
            u64 t2 = (rotate_right(a, 28) ^ rotate_right(a, 34) ^ rotate_right(a, 39)) +
                     ((a & b) ^ (a & c) ^ (b & c));
            h = g;
            g = f;
            f = e;
            e = d + t1;
            d = c;
            c = b;
            b = a;
            a = t1 + t2;
        }
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

// One byte of what is hashed: R, A, the message, the bit that ends it, zeros.
INLINE u32 hashed_byte(const u8 *r, const u8 *a, const u8 *message, int length, int at) {
    if (at < 32) return r[at];
    if (at < 64) return a[at - 32];
    if (at < 64 + length) return message[at - 64];
    return at == 64 + length ? 0x80u : 0u;
}

INLINE u32 swap_bytes(u32 x) {
    return (x >> 24) | ((x >> 8) & 0xff00u) | ((x << 8) & 0xff0000u) | (x << 24);
}

// challenge = SHA-512(R || A || message) mod L.
OUTLINE void challenge(u32 *scalar, const u8 *r, const u8 *a, const u8 *message, int length) {
    u64 state[8] = {0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull,
                    0xa54ff53a5f1d36f1ull, 0x510e527fade682d1ull, 0x9b05688c2b3e6c1full,
                    0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull};
    const int total = 64 + length, blocks = (total + 17 + 127) / 128;
    LOOP for (int block = 0; block < blocks; block++) {
        u64 w[16];
        UNROLL for (int i = 0; i < 16; i++) {
            u64 x = 0;
            LOOP for (int k = 0; k < 8; k++) {
                x = (x << 8) | hashed_byte(r, a, message, length, block * 128 + i * 8 + k);
            }
            w[i] = x;
        }
        if (block == blocks - 1) w[15] = (u64)total * 8;
        sha512_block(state, w);
    }
    u32 digest[16];
    UNROLL for (int i = 0; i < 8; i++) {
        digest[2 * i] = swap_bytes((u32)(state[i] >> 32));
        digest[2 * i + 1] = swap_bytes((u32)state[i]);
    }
    scalar_reduce(scalar, digest);
}
