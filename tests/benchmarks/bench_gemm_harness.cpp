// One harness that calls every contender: C = A * B, row-major f32, timed on this thread's CPU clock.
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#ifdef WITH_EIGEN
#include <Eigen/Dense>
#endif

enum kind { OWN, CBLAS32, CBLAS64, ONEDNN, EIGEN, XSMM };

typedef void own_gemm(const float *, const float *, float *);
typedef void cblas32(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef void cblas64(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);
typedef int onednn(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);
typedef void xsmm_kernel(const float *, const float *, float *, ...);
typedef xsmm_kernel *xsmm_dispatch(int, int, int, const int *, const int *, const int *, const float *, const float *, const int *, const int *);

static double cpu_seconds() {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef WITH_EIGEN
typedef Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> matrix;
static void eigen_gemm(int m, int n, int k, const float *a, const float *b, float *c) {
    Eigen::Map<matrix>(c, m, n).noalias() = Eigen::Map<const matrix>(a, m, k) * Eigen::Map<const matrix>(b, k, n);
}
#endif

extern "C" void *bench_prepare(int kind, void *symbol, int m, int n, int k) {
    if (kind != XSMM) return symbol;
    const float alpha = 1, beta = 0;
    const int lda = n, ldb = k, ldc = n;
    return (void *)((xsmm_dispatch *)symbol)(n, m, k, &lda, &ldb, &ldc, &alpha, &beta, NULL, NULL);
}

// CPU seconds of `repeats` calls; a negative number when this contender does not exist here.
extern "C" double bench_time(int kind, void *function, int m, int n, int k, const float *a, const float *b, float *c, int repeats) {
    const double start = cpu_seconds();
    for (int i = 0; i < repeats; ++i) switch (kind) {
        case OWN: ((own_gemm *)function)(a, b, c); break;
        case CBLAS32: ((cblas32 *)function)(101, 111, 111, m, n, k, 1, a, k, b, n, 0, c, n); break;
        case CBLAS64: ((cblas64 *)function)(101, 111, 111, m, n, k, 1, a, k, b, n, 0, c, n); break;
        case ONEDNN: ((onednn *)function)('N', 'N', m, n, k, 1, a, k, b, n, 0, c, n); break;
        case XSMM: ((xsmm_kernel *)function)(b, a, c); break;
#ifdef WITH_EIGEN
        case EIGEN: eigen_gemm(m, n, k, a, b, c); break;
#endif
        default: return -1;
        }
    return cpu_seconds() - start;
}
