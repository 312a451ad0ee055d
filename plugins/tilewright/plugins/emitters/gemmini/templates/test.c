/* Prints the instruction stream of $name, one instruction per line: function, rs1, rs2. Build it for any host:
 *   cc -DTW_ROCC_HOST $name.c ${name}_test.c
 */
#include <inttypes.h>
#include <stdio.h>
#include "$name.h"

void tw_rocc(int function, uint64_t rs1, uint64_t rs2) { printf("%d %" PRIu64 " %" PRIu64 "\n", function, rs1, rs2); }

int main(void) {
  $name((const int8_t *)(uintptr_t)${a}u, (const int8_t *)(uintptr_t)${b}u, (int8_t *)(uintptr_t)${c}u);
  return 0;
}
