/* The driver's library where there is no driver. cuDNN makes plans without a device, but since 9.28 one of its
 * libraries is linked with the driver's and does not open without it. This one loads anything and finds no device. */

static long something;

int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuGetErrorName(int error, const char **text) { (void)error; *text = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "a stub of the driver"; return 0; }

int cuModuleLoadData(void **module) { *module = &something; return 0; }
int cuModuleGetFunction(void **function) { *function = &something; return 0; }
int cuModuleUnload(void) { return 0; }
int cuLibraryLoadData(void **library) { *library = &something; return 0; }
int cuLibraryGetKernel(void **kernel) { *kernel = &something; return 0; }
int cuLibraryUnload(void) { return 0; }
int cuKernelGetFunction(void **function) { *function = &something; return 0; }
int cuKernelGetAttribute(int *value) { *value = 0; return 0; }
int cuKernelSetAttribute(void) { return 0; }
int cuTensorMapEncodeIm2col(void) { return 0; }
int cuTensorMapEncodeTiled(void) { return 0; }

#define NO_DEVICE(name) int name(void) { return 100; }
NO_DEVICE(cuInit)
NO_DEVICE(cuCtxGetCurrent)
NO_DEVICE(cuCtxGetLimit)
NO_DEVICE(cuCtxPopCurrent)
NO_DEVICE(cuCtxPushCurrent)
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuDeviceGetCount)
NO_DEVICE(cuLaunchCooperativeKernel)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuLaunchKernelEx)
NO_DEVICE(cuLibraryLoadFromFile)
NO_DEVICE(cuLinkAddData)
NO_DEVICE(cuLinkComplete)
NO_DEVICE(cuLinkCreate)
NO_DEVICE(cuLinkDestroy)
NO_DEVICE(cuOccupancyMaxPotentialClusterSize)
NO_DEVICE(cuStreamGetCtx)
