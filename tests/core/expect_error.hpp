#pragma once
// Tests of errors assert the code and the whole text: the text is what a user acts on.
#include <gtest/gtest.h>

#include <oriel/error.hpp>
#include <string>

namespace oriel {

/// Passes if `call` throws oriel::Error with exactly this code and text.
template <typename Call>
void expect_error(ErrorCode code, const std::string& text, Call&& call) {
  try {
    call();
    ADD_FAILURE() << "expected " << to_string(code) << ": " << text << "\nbut nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code));
    EXPECT_EQ(error.what(), text);
  }
}

}  // namespace oriel
