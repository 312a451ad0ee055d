#ifndef @NAME@_H
#define @NAME@_H
#ifdef __cplusplus
extern "C" {
#endif

/* outputs[@M@ x @N@] = inputs[@M@ x @K@] * weights[@K@ x @N@], row-major; the result may not overlap an operand. */
void @NAME@(const float *inputs, const float *weights, float *outputs);

/* Whether this machine has the instructions. */
int @NAME@_available(void);

#ifdef __cplusplus
}
#endif
#endif
