// What differs between the device and an ordinary C++ compiler: qualifiers, and addition with carry.
//
// Promises that everything built on these macros has the same dataflow on both, so that what is proved of
// the host build with ordinary tests holds for the device build too: on the device the macros are PTX
// instructions on its carry flag, on the host the same steps on a variable that stands for that flag.
// Knows no arithmetic beyond one word.
#pragma once

#if defined(__CUDACC_RTC__)
typedef unsigned char u8;
typedef int i32;
typedef unsigned int u32;
typedef unsigned long long u64;
#else
#include <stdint.h>
typedef uint8_t u8;
typedef int32_t i32;
typedef uint32_t u32;
typedef unsigned long long u64;
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

// INLINE for what is small or used once; OUTLINE keeps the code of a kernel within the instruction cache.
#define INLINE static __device__ __forceinline__
#define OUTLINE static __device__ __noinline__
#define CONSTANT static __device__ const
#define UNROLL _Pragma("unroll")
#define LOOP _Pragma("unroll 1")

// Opens a scope in which the carry flag is used.
#define CARRY_FLAG
// d = a + b; the carry goes to the flag.
#define ADD_SET(d, a, b) asm volatile("add.cc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
// d = a + b + carry; the carry goes to the flag.
#define ADD_USE_SET(d, a, b) asm volatile("addc.cc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
// d = a + b + carry; a further carry is lost.
#define ADD_USE(d, a, b) asm volatile("addc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
// The same for subtraction and its borrow.
#define SUB_SET(d, a, b) asm volatile("sub.cc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
#define SUB_USE_SET(d, a, b) asm volatile("subc.cc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
#define SUB_USE(d, a, b) asm volatile("subc.u32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b))
// (high, low) += a * b; the carry goes to the flag. `low` is written while a and b are still needed.
#define MULADD_SET(low, high, a, b)                                             \
    asm volatile("mad.lo.cc.u32 %0, %2, %3, %0; madc.hi.cc.u32 %1, %2, %3, %1;" \
                 : "+&r"(low), "+r"(high)                                       \
                 : "r"(a), "r"(b))
// (high, low) += a * b + carry; the carry goes to the flag.
#define MULADD_USE_SET(low, high, a, b)                                          \
    asm volatile("madc.lo.cc.u32 %0, %2, %3, %0; madc.hi.cc.u32 %1, %2, %3, %1;" \
                 : "+&r"(low), "+r"(high)                                        \
                 : "r"(a), "r"(b))

#else

#define INLINE static inline
#define OUTLINE static
#define CONSTANT static const
#define UNROLL
#define LOOP

#define CARRY_FLAG      \
    u32 carry_flag = 0; \
    (void)carry_flag;
#define ADD_SET(d, a, b)                    \
    do {                                    \
        u64 sum_ = (u64)(a) + (b);          \
        (d) = (u32)sum_;                    \
        carry_flag = (u32)(sum_ >> 32);     \
    } while (0)
#define ADD_USE_SET(d, a, b)                    \
    do {                                        \
        u64 sum_ = (u64)(a) + (b) + carry_flag; \
        (d) = (u32)sum_;                        \
        carry_flag = (u32)(sum_ >> 32);         \
    } while (0)
#define ADD_USE(d, a, b) ((d) = (u32)(a) + (u32)(b) + carry_flag)
#define SUB_SET(d, a, b)                     \
    do {                                     \
        u64 difference_ = (u64)(a) - (b);    \
        (d) = (u32)difference_;              \
        carry_flag = (u32)(difference_ >> 63); \
    } while (0)
#define SUB_USE_SET(d, a, b)                           \
    do {                                               \
        u64 difference_ = (u64)(a) - (b) - carry_flag; \
        (d) = (u32)difference_;                        \
        carry_flag = (u32)(difference_ >> 63);         \
    } while (0)
#define SUB_USE(d, a, b) ((d) = (u32)(a) - (u32)(b) - carry_flag)
#define MULADD_USE_SET(low, high, a, b)                          \
    do {                                                         \
        u64 product_ = (u64)(a) * (b);                           \
        u64 sum_ = (u64)(low) + (u32)product_ + carry_flag;      \
        (low) = (u32)sum_;                                       \
        sum_ = (u64)(high) + (product_ >> 32) + (sum_ >> 32);    \
        (high) = (u32)sum_;                                      \
        carry_flag = (u32)(sum_ >> 32);                          \
    } while (0)
#define MULADD_SET(low, high, a, b)            \
    do {                                       \
        carry_flag = 0;                        \
        MULADD_USE_SET(low, high, a, b);       \
    } while (0)

#endif

// Four bytes, least significant first, at any alignment.
INLINE u32 load_u32(const u8 *bytes) {
    return bytes[0] | ((u32)bytes[1] << 8) | ((u32)bytes[2] << 16) | ((u32)bytes[3] << 24);
}

// Thirty-two bytes as eight words, least significant first.
INLINE void load_words(u32 *words, const u8 *bytes) {
    UNROLL for (int i = 0; i < 8; i++) words[i] = load_u32(bytes + 4 * i);
}
