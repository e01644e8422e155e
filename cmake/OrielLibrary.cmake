# oriel_library(target kind): the library, STATIC or SHARED, from the objects of all floors.
function(oriel_library target kind)
  add_library(${target} ${kind})
  foreach(floor core jinja tokenizer image ops nn arch text tower)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:oriel_${floor}>)
  endforeach()
  if(ORIEL_CUDA)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:oriel_kernels>)
    target_link_libraries(${target} PRIVATE CUDA::cudart CUDA::cublasLt)
  endif()
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PRIVATE oriel::libtorch oriel::pcre2 ZLIB::ZLIB Threads::Threads)
  if(ORIEL_HAS_JPEG)
    target_link_libraries(${target} PRIVATE JPEG::JPEG)
  endif()
  if(ORIEL_HAS_WEBP)
    target_link_libraries(${target} PRIVATE oriel::webp)
  endif()
  if(ORIEL_SANITIZE)
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${ORIEL_SANITIZE}>)
  endif()

  # Versions of one minor fit together before 1.0, so the minor is in the file's name.
  set_target_properties(${target} PROPERTIES
    LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  # liboriel.so finds libtorch, which is seldom in a system's folder, by its run path, installed or not. CMake itself
  # would leave out a libtorch inside the project, such as the one in .venv. CMAKE_INSTALL_RPATH says otherwise.
  set_target_properties(${target} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  if(NOT DEFINED CMAKE_INSTALL_RPATH)
    set_target_properties(${target} PROPERTIES INSTALL_RPATH ${ORIEL_TORCH_DIR}/lib)
  endif()
  if(kind STREQUAL "SHARED" AND UNIX AND NOT APPLE)
    set(exports ${PROJECT_SOURCE_DIR}/src/oriel.map)
    target_link_options(${target} PRIVATE LINKER:--version-script=${exports})
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${exports})
  endif()
endfunction()
