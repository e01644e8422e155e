# An overlay port that builds the checkout in which it lies:
#
#   ORIEL_TORCH_DIR=<libtorch> vcpkg install oriel --overlay-ports=<checkout>/packaging/vcpkg --no-binarycaching
#
# libtorch does not come from vcpkg: oriel is exact with one version of it, and links the files that PyPI's torch wheel
# or pytorch.org's archive holds. Its folder is the variable ORIEL_TORCH_DIR of the triplet or of the environment.
# --no-binarycaching, since vcpkg tells two builds apart by the files of the port, and the sources are none of them.
if(NOT ORIEL_TORCH_DIR)
  set(ORIEL_TORCH_DIR "$ENV{ORIEL_TORCH_DIR}")
endif()
if(NOT EXISTS "${ORIEL_TORCH_DIR}/lib")
  message(FATAL_ERROR "ORIEL_TORCH_DIR, in the triplet or in the environment: expected the folder with libtorch's "
    "include/ and lib/, found '${ORIEL_TORCH_DIR}'")
endif()
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS feature_options FEATURES
  cuda ORIEL_CUDA
  jpeg ORIEL_WITH_LIBJPEG_TURBO
  webp ORIEL_WITH_LIBWEBP)
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    ${feature_options}
    "-DORIEL_TORCH_DIR=${ORIEL_TORCH_DIR}"
    -DORIEL_BUILD_EXAMPLES=OFF
    -DORIEL_BUILD_TESTS=OFF
    -DORIEL_WARNINGS_AS_ERRORS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/oriel)
vcpkg_fixup_pkgconfig()

# liboriel.so finds libtorch by its run path, which vcpkg would cut down to folders of its own.
set(X_VCPKG_RPATH_KEEP_SYSTEM_PATHS ON)

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
