// Ways to die that only C++ has.
#include <cstddef>
#include <stdexcept>
#include <string>

namespace game {

// An exception of the program's own, as programs have them.
struct Refused : std::runtime_error {
    explicit Refused(const std::string &why) : std::runtime_error(why) {}
};

} // namespace game

// Thrown where nothing catches it: std::terminate. `noexcept`, because what is above is Rust.
extern "C" void crasher_throw(const char *what) noexcept
{
    throw game::Refused(what);
}

// Overwrites what the compiler put between its locals and its return address; noticed on return.
extern "C" int crasher_smash(std::size_t length)
{
    volatile char small[16];
    volatile char *at = small;
    for (std::size_t i = 0; i < length; i++)
        at[i] = 'x';
    return small[0];
}
