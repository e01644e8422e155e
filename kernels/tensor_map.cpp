#include "tensor_map.h"

namespace oriel::kernels {
namespace {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/// The driver's function, through the runtime: no link to libcuda. Null where the driver is too old.
EncodeTiled find_encode_tiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
  return status == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(function)
                                                                        : nullptr;
}

}  // namespace

cudaError_t encode_tensor_map(Element element, const void* data, int dimensions, const cuuint64_t* sizes,
                              const cuuint64_t* strides, const cuuint32_t* box, CUtensorMap* map,
                              CUtensorMapSwizzle swizzle) {
  static const EncodeTiled encode = find_encode_tiled();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint32_t element_strides[5] = {1, 1, 1, 1, 1};
  const CUtensorMapDataType type =
      element == Element::float16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const CUresult result = encode(map, type, static_cast<cuuint32_t>(dimensions), const_cast<void*>(data), sizes,
                                 strides, box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t allow_shared_memory(const void* kernel, int threads, int bytes) {
  cudaFuncAttributes attributes{};
  if (const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel); status != cudaSuccess) {
    cudaGetLastError();  // no code for this device at all is an answer, not an error to be found later
    return status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ? cudaErrorNotSupported
                                                                                                 : status;
  }
  if (attributes.maxThreadsPerBlock < threads) return cudaErrorNotSupported;
  if (attributes.maxDynamicSharedSizeBytes >= bytes) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace oriel::kernels
