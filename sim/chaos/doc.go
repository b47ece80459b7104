// Package chaos holds one fleet under everything that goes wrong at once, and
// checks what it told its users the whole time: real processes on a LAN of
// namespaces, several clients at different robots, and meanwhile kills, pauses,
// partitions and one-way cuts in random order.
//
// What the clients saw must be linearizable (checked by porcupine), every write
// that was acknowledged must be in every robot's log exactly once, no other more
// than once, and all robots must have the same state at the same event.
//
// The package has tests only. A failure prints its seed; SKEIN_SEED runs it again
// with the same faults, as far as a real network repeats.
package chaos
