# What oriel is built from. Nothing here reaches a consumer but the libtorch libraries that have to be linked.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(ZLIB REQUIRED)
find_path(ORIEL_STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb REQUIRED)
find_path(ORIEL_XXHASH_INCLUDE_DIR xxhash.h REQUIRED)

if(ORIEL_WITH_LIBJPEG_TURBO)
  find_package(JPEG)
endif()
if(ORIEL_WITH_LIBWEBP)
  find_path(ORIEL_WEBP_INCLUDE_DIR webp/decode.h)
  find_library(ORIEL_WEBP_LIBRARY webp)
endif()

# libtorch, without find_package(Torch): that one stops where a CUDA build of torch meets a machine without a CUDA
# toolkit, and appends global flags. ORIEL_TORCH_DIR is the folder that holds include/ and lib/.
if(NOT ORIEL_TORCH_DIR)
  find_path(_oriel_torch_header include/ATen/core/Tensor.h
    HINTS ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3.13/site-packages/torch
          ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3.12/site-packages/torch
          ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3.11/site-packages/torch
          ${CMAKE_CURRENT_SOURCE_DIR}/.venv/lib/python3.10/site-packages/torch
    PATH_SUFFIXES libtorch torch)
  if(NOT _oriel_torch_header)
    message(FATAL_ERROR "libtorch not found. Run scripts/setup, or pass -DORIEL_TORCH_DIR=<folder with include/ and lib/>")
  endif()
  set(ORIEL_TORCH_DIR ${_oriel_torch_header} CACHE PATH "The libtorch folder, with include/ and lib/")
endif()
find_library(ORIEL_TORCH_CPU_LIBRARY torch_cpu PATHS ${ORIEL_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)
find_library(ORIEL_C10_LIBRARY c10 PATHS ${ORIEL_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)

add_library(oriel_torch INTERFACE)
target_include_directories(oriel_torch SYSTEM INTERFACE $<BUILD_INTERFACE:${ORIEL_TORCH_DIR}/include>)
target_compile_definitions(oriel_torch INTERFACE AT_PER_OPERATOR_HEADERS)
target_link_libraries(oriel_torch INTERFACE ${ORIEL_TORCH_CPU_LIBRARY} ${ORIEL_C10_LIBRARY} Threads::Threads)
if(ORIEL_CUDA)
  find_package(CUDAToolkit REQUIRED)
  find_library(ORIEL_TORCH_CUDA_LIBRARY torch_cuda PATHS ${ORIEL_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)
  find_library(ORIEL_C10_CUDA_LIBRARY c10_cuda PATHS ${ORIEL_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)
  # libtorch_cuda registers its operators when it is loaded; nothing refers to it by symbol.
  target_link_libraries(oriel_torch INTERFACE
    -Wl,--push-state,--no-as-needed ${ORIEL_TORCH_CUDA_LIBRARY} ${ORIEL_C10_CUDA_LIBRARY} -Wl,--pop-state)
  target_compile_definitions(oriel_torch INTERFACE ORIEL_CUDA=1)
endif()
