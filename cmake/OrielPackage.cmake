# What find_package(oriel) and pkg-config find.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# oriel_package(target [EXCLUDE_FROM_ALL]): install rules for the library `target`, as component `target`, with the
# headers and the files by which others find them.
function(oriel_package target)
  cmake_parse_arguments(ARG "EXCLUDE_FROM_ALL" "" "" ${ARGN})
  set(rule COMPONENT ${target})
  if(ARG_EXCLUDE_FROM_ALL)
    list(APPEND rule EXCLUDE_FROM_ALL)
  endif()
  set(folder ${CMAKE_INSTALL_LIBDIR}/cmake/oriel)
  set(generated ${PROJECT_BINARY_DIR}/package/${target})
  get_target_property(type ${target} TYPE)
  set(ORIEL_IS_STATIC FALSE)
  if(type STREQUAL "STATIC_LIBRARY")
    set(ORIEL_IS_STATIC TRUE)
  endif()
  get_target_property(ORIEL_PCRE2_HINT oriel::pcre2 INTERFACE_LINK_LIBRARIES)
  set(ORIEL_WEBP_HINT "")
  if(ORIEL_HAS_WEBP)
    get_target_property(ORIEL_WEBP_HINT oriel::webp INTERFACE_LINK_LIBRARIES)
  endif()
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/oriel-config.cmake.in ${generated}/oriel-config.cmake
    INSTALL_DESTINATION ${folder} NO_SET_AND_CHECK_MACRO)
  write_basic_package_version_file(${generated}/oriel-config-version.cmake COMPATIBILITY SameMinorVersion)
  oriel_write_pkg_config_file(${generated}/oriel.pc)

  set_target_properties(${target} PROPERTIES EXPORT_NAME oriel)
  install(TARGETS ${target} EXPORT ${target}-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} ${rule}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} NAMELINK_COMPONENT ${target} ${rule})
  install(EXPORT ${target}-targets NAMESPACE oriel:: FILE oriel-targets.cmake DESTINATION ${folder} ${rule})
  install(FILES ${generated}/oriel-config.cmake ${generated}/oriel-config-version.cmake
    ${PROJECT_SOURCE_DIR}/cmake/OrielLinked.cmake DESTINATION ${folder} ${rule})
  install(FILES ${generated}/oriel.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig ${rule})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/oriel DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${rule}
    FILES_MATCHING PATTERN "*.hpp")
endfunction()

# A program with liboriel.a links everything that oriel links, so all of it is in Requires and Libs: nobody has to
# know about --static. With liboriel.so it links nothing but that.
function(oriel_write_pkg_config_file file)
  set(requires "")
  set(private_libraries "")
  if(ORIEL_IS_STATIC)
    set(requires zlib libpcre2-8)
    if(ORIEL_HAS_JPEG)
      list(APPEND requires libjpeg)
    endif()
    if(ORIEL_HAS_WEBP)
      list(APPEND requires libwebp)
    endif()
    set(private_libraries " -L\${torch_dir}/lib -Wl,-rpath,\${torch_dir}/lib -ltorch_cpu -lc10")
    if(ORIEL_CUDA)
      string(APPEND private_libraries " -Wl,--push-state,--no-as-needed -ltorch_cuda -lc10_cuda -Wl,--pop-state")
      string(APPEND private_libraries " -L${CUDAToolkit_LIBRARY_DIR} -lcublasLt -lcudart")
    endif()
    string(APPEND private_libraries " -pthread")
  endif()
  list(JOIN requires ", " requires)
  file(RELATIVE_PATH to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/oriel.pc.in ${file} @ONLY)
endfunction()
