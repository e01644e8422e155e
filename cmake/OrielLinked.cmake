# The libraries that have no package file of their own: libtorch, libwebp and PCRE2. oriel's own build includes this file, and
# it is installed beside oriel-config.cmake, because whoever links liboriel.a links these too.

# oriel_find_libtorch(folder cuda problem): defines oriel::libtorch from a folder that holds include/ and lib/, with the
# CUDA libraries if `cuda`. `problem` is set to a sentence if that can't be, else to nothing.
# find_package(Torch) does not serve: it stops where a CUDA build of libtorch meets a machine without a CUDA toolkit, and
# it appends global flags.
function(oriel_find_libtorch folder cuda problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET oriel::libtorch)
    return()
  endif()
  set(names torch_cpu c10)
  if(cuda)
    list(APPEND names torch_cuda c10_cuda)
  endif()
  set(libraries "")
  foreach(name ${names})
    unset(library)
    find_library(library ${name} PATHS ${folder}/lib NO_DEFAULT_PATH NO_CACHE)
    if(NOT library)
      set(${problem} "ORIEL_TORCH_DIR: expected libtorch with include/ and lib/, found no ${name} in '${folder}/lib'"
        PARENT_SCOPE)
      return()
    endif()
    list(APPEND libraries ${library})
  endforeach()
  if(cuda)
    # They register their operators when they are loaded; nothing refers to them by symbol.
    list(INSERT libraries 2 -Wl,--push-state,--no-as-needed)
    list(APPEND libraries -Wl,--pop-state)
  endif()
  add_library(oriel::libtorch INTERFACE IMPORTED GLOBAL)
  set_target_properties(oriel::libtorch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${folder}/include
    INTERFACE_LINK_LIBRARIES "${libraries}")
endfunction()

# oriel_libtorch_version(folder version): such as 2.11.0, or nothing if the headers do not say.
function(oriel_libtorch_version folder version)
  set(${version} "" PARENT_SCOPE)
  foreach(header torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
    if(EXISTS ${folder}/include/${header})
      file(READ ${folder}/include/${header} text)
      if(text MATCHES "define TORCH_VERSION[ \\\n]+\"([0-9.]+)")
        set(${version} ${CMAKE_MATCH_1} PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
endfunction()

# oriel_find_webp(hint problem): defines oriel::webp from libwebp's package file, from the library file `hint`, or from
# where libraries usually are. `problem` as above.
function(oriel_find_webp hint problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET oriel::webp)
    return()
  endif()
  find_package(WebP CONFIG QUIET)
  if(TARGET WebP::webp)
    add_library(oriel::webp INTERFACE IMPORTED GLOBAL)
    set_target_properties(oriel::webp PROPERTIES INTERFACE_LINK_LIBRARIES WebP::webp)
    return()
  endif()
  unset(library)
  unset(include_folder)
  if(EXISTS "${hint}")
    set(library "${hint}")
  else()
    find_library(library webp NO_CACHE)
  endif()
  find_path(include_folder webp/decode.h NO_CACHE)
  if(NOT library OR NOT include_folder)
    set(${problem} "expected libwebp and its header webp/decode.h, found neither a package WebP nor both files"
      PARENT_SCOPE)
    return()
  endif()
  add_library(oriel::webp INTERFACE IMPORTED GLOBAL)
  set_target_properties(oriel::webp PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${include_folder}
    INTERFACE_LINK_LIBRARIES ${library})
endfunction()

# oriel_find_pcre2(hint problem): defines oriel::pcre2, the 8-bit library, in the same way.
function(oriel_find_pcre2 hint problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET oriel::pcre2)
    return()
  endif()
  find_package(PCRE2 CONFIG QUIET COMPONENTS 8BIT)
  foreach(packaged PCRE2::8BIT PCRE2::pcre2-8-shared PCRE2::pcre2-8-static)
    if(TARGET ${packaged})
      add_library(oriel::pcre2 INTERFACE IMPORTED GLOBAL)
      set_target_properties(oriel::pcre2 PROPERTIES INTERFACE_LINK_LIBRARIES ${packaged})
      return()
    endif()
  endforeach()
  unset(library)
  unset(include_folder)
  if(EXISTS "${hint}")
    set(library "${hint}")
  else()
    find_library(library pcre2-8 NO_CACHE)
  endif()
  find_path(include_folder pcre2.h NO_CACHE)
  if(NOT library OR NOT include_folder)
    set(${problem} "expected PCRE2 and its header pcre2.h, found neither a package PCRE2 nor both files" PARENT_SCOPE)
    return()
  endif()
  add_library(oriel::pcre2 INTERFACE IMPORTED GLOBAL)
  set_target_properties(oriel::pcre2 PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES ${include_folder}
    INTERFACE_LINK_LIBRARIES ${library})
endfunction()
