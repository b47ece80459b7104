// Package scripts holds the house rules of the repository as tests: who may
// import whom (table.go, edges.go), what a pure package may not touch
// (purity.go), and the ratchet on size, naming, documentation and state
// (style.go, state.go). `make check` runs them.
//
// The rules work on syntax alone. They read every .go file of the module, also
// those that the present platform does not build, and need neither a build nor
// the network. Each rule is a function from a Tree to findings; the tests run it
// on a small made-up tree, where it must find exactly the planted faults, and on
// this repository, where it must find nothing.
//
// Nothing imports this package. The folders beside it are programs and data for
// the Makefile: testrun, benchjson, fuzz, tools.
package scripts
