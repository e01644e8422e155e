# The house of docs/architecture.md as targets: one object library per floor, which sees only the floors below it.

# Flags of oriel's own code. -ffp-contract=off: a fused multiply-add can move a resize coefficient by one unit.
add_library(oriel_flags INTERFACE)
target_compile_features(oriel_flags INTERFACE cxx_std_20)
target_compile_options(oriel_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -ffp-contract=off
  $<$<BOOL:${ORIEL_WARNINGS_AS_ERRORS}>:-Werror>)
if(ORIEL_SANITIZE)
  target_compile_options(oriel_flags INTERFACE -fsanitize=${ORIEL_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(oriel_flags INTERFACE -fsanitize=${ORIEL_SANITIZE})
endif()

# oriel_floor(name [LINK libraries...]): src/<name>/*.cpp as object library oriel_<name>.
function(oriel_floor name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  add_library(oriel_${name} OBJECT ${sources})
  target_include_directories(oriel_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(oriel_${name} PRIVATE oriel_flags PUBLIC ${ARG_LINK})
  set_target_properties(oriel_${name} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()

# oriel_tests(name FLOORS floors...): tests/<name>/*_test.cpp as one program against the objects of the floors.
function(oriel_tests name)
  cmake_parse_arguments(ARG "" "" "FLOORS;LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(oriel_${name}_tests ${sources})
  if(ORIEL_CUDA AND "ops" IN_LIST ARG_FLOORS)
    list(APPEND ARG_FLOORS kernels)
  endif()
  list(TRANSFORM ARG_FLOORS PREPEND oriel_)
  target_link_libraries(oriel_${name}_tests PRIVATE ${ARG_FLOORS} ${ARG_LINK} oriel_flags GTest::gmock GTest::gtest_main)
  target_include_directories(oriel_${name}_tests PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(oriel_${name}_tests PRIVATE
    ORIEL_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data" ORIEL_ASSETS="${PROJECT_SOURCE_DIR}/assets")
  gtest_discover_tests(oriel_${name}_tests DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
endfunction()
