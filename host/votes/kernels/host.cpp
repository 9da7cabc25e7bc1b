// What the kernels run, callable from tests on a machine without a device.
#include "verify.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

template <int WINDOW>
static int build(const u8 *key, int negate, TableEntry *table) {
    for (int digit = 0; digit < Table<WINDOW>::digits; digit++) {
        if (!table_row<WINDOW>(table, key, digit, negate != 0)) return 0;
    }
    return 1;
}

EXPORT int host_table_entries(int window) { return window == 4 ? Table<4>::entries : Table<8>::entries; }

EXPORT int host_build_table(int window, const u8 *key, int negate, TableEntry *table) {
    return window == 4 ? build<4>(key, negate, table) : build<8>(key, negate, table);
}

// Verifies up to four votes that share one inversion, as a lane of the first warp does. Without a table the
// path for any key is taken. `places` names the key table of each vote.
EXPORT void host_verify(int window, int count, const u8 *const *signatures, const u8 *const *keys,
                        const u8 *const *messages, const int *lengths, const TableEntry *const *tables,
                        const TableEntry *base_table, u8 *verdicts) {
    Half half[4];
    Field z[4];
    for (int i = 0; i < count; i++) {
        const u8 *message = messages[i];
        if (window == 0) {
            verify_any_key(half[i], signatures[i], keys[i], message, lengths[i], base_table);
        } else if (window == 4) {
            verify_known_key<4>(half[i], signatures[i], keys[i], message, lengths[i], tables[i], base_table);
        } else {
            verify_known_key<8>(half[i], signatures[i], keys[i], message, lengths[i], tables[i], base_table);
        }
        z[i] = half[i].z;
    }
    field_invert_many(z, count, 1);
    for (int i = 0; i < count; i++) verdicts[i] = verify_finish(half[i], z[i], signatures[i]);
}

// One field operation on numbers below 2^256; the result is canonical. 0 to 5: mul, square, add, sub, invert,
// power for roots. 6: the canonical form alone.
EXPORT void host_field(int operation, const u32 *a, const u32 *b, u32 *r) {
    Field x, y, z;
    for (int i = 0; i < 8; i++) {
        x.word[i] = a[i];
        y.word[i] = b[i];
    }
    switch (operation) {
    case 0: field_mul(z, x, y); break;
    case 1: field_square(z, x); break;
    case 2: field_add(z, x, y); break;
    case 3: field_sub(z, x, y); break;
    case 4: field_invert(z, x); break;
    case 5: field_power_root(z, x); break;
    default: z = x; break;
    }
    field_canonical(z);
    for (int i = 0; i < 8; i++) r[i] = z.word[i];
}

EXPORT void host_scalar_reduce(u32 *r, const u32 *h) { scalar_reduce(r, h); }
