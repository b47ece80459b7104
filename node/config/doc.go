// Package config reads the settings of one node: the TOML file given to
// `skein run --config FILE`.
//
// Load is the only way in: it starts from Default, lays the file over it,
// refuses every key it does not know and every value out of range, and returns
// either a configuration that is safe to use or one error of one line that
// names the file, the line, the key and what to do.
//
// The meaning and the default of every key stand in one place for people,
// example.toml (Example), and in one place for the program, Default; a test
// holds the two together.
//
// The package reads the file it is given and nothing else: no environment, no
// network, no other file, so a configuration can be checked on another machine.
// Of Skein it imports only words (event, ident), for the rules on names and
// types. The composer (node), the commands, sim and tests may import it; packages
// below take their own small Config, never this one.
package config
