# Warnings, sanitizers and coverage for every target, and the two helpers that declare a room.
add_compile_options(-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith
                    -Wwrite-strings -Wvla -Wundef -Wformat=2 -Wimplicit-fallthrough
                    -fno-common -fstack-protector-strong -fno-omit-frame-pointer)
add_compile_definitions(_GNU_SOURCE _FILE_OFFSET_BITS=64 FAAS_VERSION="${PROJECT_VERSION}")

if(FAAS_WERROR)
    add_compile_options(-Werror)
endif()
if(FAAS_ASSERTS)
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_RELWITHDEBINFO "${CMAKE_C_FLAGS_RELWITHDEBINFO}")
endif()
if(FAAS_SANITIZE)
    add_compile_options(-fsanitize=${FAAS_SANITIZE} -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${FAAS_SANITIZE})
elseif(NOT FAAS_COVERAGE AND NOT FAAS_FUZZ AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
    add_compile_definitions(_FORTIFY_SOURCE=2)
endif()
if(FAAS_COVERAGE)
    # Atomic, because controller and worker run several threads; -fprofile-abs-path for gcovr.
    add_compile_options(--coverage -fprofile-update=atomic -fprofile-abs-path)
    add_link_options(--coverage)
endif()
if(FAAS_FUZZ)
    add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
    add_link_options(-fsanitize=address,undefined)
endif()

# room_library(NAME DEPENDENCY...): a static library faas_NAME of every .c file in this folder.
function(room_library name)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    add_library(faas_${name} STATIC ${sources})
    target_link_libraries(faas_${name} PUBLIC ${ARGN})
    target_include_directories(faas_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
endfunction()

# room_program(NAME PROGRAM DEPENDENCY...): main.c becomes PROGRAM, every other .c file a library that tests link.
function(room_program name program)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/main.c)
    add_library(faas_${name} STATIC ${sources})
    target_link_libraries(faas_${name} PUBLIC ${ARGN})
    target_include_directories(faas_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
    add_executable(${program} main.c)
    target_link_libraries(${program} PRIVATE faas_${name})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()
