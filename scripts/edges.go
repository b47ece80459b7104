package scripts

import (
	"fmt"
	"go/token"
	"strings"
)

// Edge allows one package to import another. Paths are relative to the module;
// one that ends in "/..." stands for the folder and everything below it.
type Edge struct {
	From, To string
	// Why is the reason, for the reader of a failure.
	Why string
}

// CheckEdges finds imports between packages of the module that the table does
// not allow, and rows of the table that no import uses. Tests may import what
// they need.
func CheckEdges(tree *Tree, table []Edge) []Finding {
	used := make([]bool, len(table))
	var findings []Finding
	for _, p := range tree.Packages {
		reported := map[string]bool{} // an edge is one finding, however many files have it
		for _, file := range p.Files {
			if file.Test {
				continue
			}
			for _, spec := range file.Syntax.Imports {
				to, ok := internal(importPath(spec))
				if ok && !reported[to] && !allow(table, used, p.Path, to) {
					reported[to] = true
					findings = append(findings, tree.at(spec, "%s", refusal(p.Path, to)))
				}
			}
		}
	}
	for i, edge := range table {
		if !used[i] {
			findings = append(findings, Finding{
				Pos:  token.Position{Filename: "scripts/table.go"},
				Text: fmt.Sprintf("no import uses the row {%q, %q}; delete it", edge.From, edge.To),
			})
		}
	}
	return findings
}

// allow looks an import up and marks the rows that allow it.
func allow(table []Edge, used []bool, from, to string) bool {
	allowed := false
	for i, edge := range table {
		if matches(edge.From, from) && matches(edge.To, to) {
			used[i], allowed = true, true
		}
	}
	return allowed
}

func refusal(from, to string) string {
	if matches("sim/...", to) && !matches("sim/...", from) {
		return fmt.Sprintf("%s imports %s: the simulator is for tests and benchmarks; let node hand in what is needed, or add a row with the reason to scripts/table.go", from, to)
	}
	return fmt.Sprintf("%s imports %s, which no row of scripts/table.go allows; let %s declare the small interface it needs and node hand it in, or add a row with the reason",
		from, to, from)
}

// internal gives the path inside the module of an import of the module.
func internal(path string) (string, bool) {
	if path == Module {
		return ".", true
	}
	return strings.CutPrefix(path, Module+"/")
}

func matches(pattern, path string) bool {
	folder, ok := strings.CutSuffix(pattern, "/...")
	return pattern == path || ok && (path == folder || strings.HasPrefix(path, folder+"/"))
}

// Ban forbids a package from outside to everybody.
type Ban struct {
	// Path is the import path; with "/..." also everything below it.
	Path string
	// Why is the reason, and what to use instead.
	Why string
}

// CheckBans finds imports of banned packages, in tests too.
func CheckBans(tree *Tree, bans []Ban) []Finding {
	var findings []Finding
	for _, p := range tree.Packages {
		for _, file := range p.Files {
			for _, spec := range file.Syntax.Imports {
				for _, ban := range bans {
					if matches(ban.Path, importPath(spec)) {
						findings = append(findings, tree.at(spec, "imports %s: %s", importPath(spec), ban.Why))
					}
				}
			}
		}
	}
	return findings
}
