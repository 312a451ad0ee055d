/* One custom instruction of a RoCC accelerator on custom-3. Elsewhere than on RISC-V, tw_rocc is for the caller to define. */
#include <stdint.h>
#if defined(__riscv) && !defined(TW_ROCC_HOST)
#define TW_ROCC(function, rs1, rs2) \
  __asm__ volatile(".insn r CUSTOM_3, 0x3, %0, x0, %1, %2" ::"i"(function), "r"((uint64_t)(rs1)), "r"((uint64_t)(rs2)) : "memory")
#define TW_FENCE() __asm__ volatile("fence" ::: "memory")
#else
void tw_rocc(int function, uint64_t rs1, uint64_t rs2);
#define TW_ROCC(function, rs1, rs2) tw_rocc((function), (uint64_t)(rs1), (uint64_t)(rs2))
#define TW_FENCE() ((void)0)
#endif
#define TW_AT(field, bit) ((uint64_t)(field) << (bit))
#define TW_MIN(a, b) ((a) < (b) ? (a) : (b))
#define TW_MAX(a, b) ((a) > (b) ? (a) : (b))
