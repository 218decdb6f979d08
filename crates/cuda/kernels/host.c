// The kernels as C, for the host.
#include "shim.h"

#include "image.cu"
#include "batch_norm.cu"
#include "pool.cu"
#include "lrn.cu"
#include "layout.cu"
#include "head.cu"
#include "update.cu"
