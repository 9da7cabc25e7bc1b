// The kernels: one thread for each vote, one inversion for four votes, one bit for each verdict.
//
// Relies on verify.h for every decision. Promises that bit i % 32 of word i / 32 of the verdicts is the
// verdict on vote i, and that bits beyond the last vote are zero. All byte arrays are packed; every message
// of a launch has the same length.
#include "verify.h"

#define BLOCK 128
#define WARP 32
#define KERNEL extern "C" __global__

// Gives each thread of the block 1 / Z: the first warp inverts for all, four numbers a lane.
static __device__ __forceinline__ Field shared_inverse(const Field &z) {
    __shared__ Field all[BLOCK];
    all[threadIdx.x] = z;
    __syncthreads();
    if (threadIdx.x < WARP) field_invert_many(all + threadIdx.x, BLOCK / WARP, WARP);
    __syncthreads();
    return all[threadIdx.x];
}

static __device__ __forceinline__ void write_verdicts(u32 *verdicts, u32 vote, u32 count, bool accepted) {
    const u32 bits = __ballot_sync(0xffffffffu, accepted);
    if (threadIdx.x % WARP == 0 && vote < count) verdicts[vote / WARP] = bits;
}

KERNEL void __launch_bounds__(BLOCK)
    votes_any_key(const u8 *signatures, const u8 *keys, const u8 *messages, int message_bytes,
                  const TableEntry *base_row, u32 *verdicts, u32 count) {
    const u32 vote = blockIdx.x * BLOCK + threadIdx.x;
    // Threads beyond the last vote repeat it, so that all take part in the shared inversion.
    const u64 at = vote < count ? vote : count - 1;
    Half half;
    verify_any_key(half, signatures + 64 * at, keys + 32 * at, messages + message_bytes * at, message_bytes,
                   base_row);
    const Field z_inverse = shared_inverse(half.z);
    write_verdicts(verdicts, vote, count, vote < count && verify_finish(half, z_inverse, signatures + 64 * at));
}

// `places` names each vote's key among the tables; `usable` says which tables were built.
template <int WINDOW>
static __device__ __forceinline__ void known_key(const u8 *signatures, const u32 *places, const u8 *keys,
                                                 const u8 *usable, const u8 *messages, int message_bytes,
                                                 const TableEntry *tables, const TableEntry *base_table,
                                                 u32 *verdicts, u32 count) {
    const u32 vote = blockIdx.x * BLOCK + threadIdx.x;
    const u64 at = vote < count ? vote : count - 1;
    const u64 place = places[at];
    Half half;
    verify_known_key<WINDOW>(half, signatures + 64 * at, keys + 32 * place, messages + message_bytes * at,
                             message_bytes, tables + place * Table<WINDOW>::entries, base_table);
    const Field z_inverse = shared_inverse(half.z);
    const bool accepted = vote < count && usable[place] && verify_finish(half, z_inverse, signatures + 64 * at);
    write_verdicts(verdicts, vote, count, accepted);
}

KERNEL void __launch_bounds__(BLOCK)
    votes_known_key_4(const u8 *signatures, const u32 *places, const u8 *keys, const u8 *usable,
                      const u8 *messages, int message_bytes, const TableEntry *tables,
                      const TableEntry *base_table, u32 *verdicts, u32 count) {
    known_key<4>(signatures, places, keys, usable, messages, message_bytes, tables, base_table, verdicts, count);
}

KERNEL void __launch_bounds__(BLOCK)
    votes_known_key_8(const u8 *signatures, const u32 *places, const u8 *keys, const u8 *usable,
                      const u8 *messages, int message_bytes, const TableEntry *tables,
                      const TableEntry *base_table, u32 *verdicts, u32 count) {
    known_key<8>(signatures, places, keys, usable, messages, message_bytes, tables, base_table, verdicts, count);
}

// One thread for each digit of each key, starting with the table of key `first`.
template <int WINDOW>
static __device__ __forceinline__ void build(const u8 *keys, int negate, TableEntry *tables, u8 *usable,
                                             u32 first, u32 count) {
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    const u64 key = first + thread / Table<WINDOW>::digits;
    const int digit = thread % Table<WINDOW>::digits;
    if (key >= first + count) return;
    const bool built =
        table_row<WINDOW>(tables + key * Table<WINDOW>::entries, keys + 32 * key, digit, negate != 0);
    if (digit == 0) usable[key] = built;
}

KERNEL void build_tables_4(const u8 *keys, int negate, TableEntry *tables, u8 *usable, u32 first, u32 count) {
    build<4>(keys, negate, tables, usable, first, count);
}

KERNEL void build_tables_8(const u8 *keys, int negate, TableEntry *tables, u8 *usable, u32 first, u32 count) {
    build<8>(keys, negate, tables, usable, first, count);
}

// How fast the card multiplies: `rounds` dependent products and squares a thread. For measurements alone.
KERNEL void multiply_rate(Field *numbers, int rounds) {
    const u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    Field x = numbers[at];
    const Field y = x;
    LOOP for (int i = 0; i < rounds; i++) {
        field_mul(x, x, y);
        field_square(x, x);
    }
    numbers[at] = x;
}
