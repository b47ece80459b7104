package main

import (
	"os"
	"testing"

	"skein/scripts"
)

// The house rules hold for this module too; the main module's test of them stops
// at the borders of others.
func TestHouseRules(t *testing.T) {
	tree, err := scripts.Load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Packages) < 5 {
		t.Fatalf("%d packages were found", len(tree.Packages))
	}
	noDesign := []scripts.Exception{
		{Path: "barelog", Why: "DESIGN.md of the program speaks of it"}, {Path: "etcdlog", Why: "DESIGN.md of the program speaks of it"},
		{Path: "load", Why: "DESIGN.md of the program speaks of it"}, {Path: "natslog", Why: "DESIGN.md of the program speaks of it"},
		{Path: "proc", Why: "DESIGN.md of the program speaks of it"}, {Path: "skeinlog", Why: "DESIGN.md of the program speaks of it"},
	}
	for _, findings := range [][]scripts.Finding{
		scripts.CheckSizes(tree), scripts.CheckComments(tree), scripts.CheckPackages(tree, noDesign), scripts.CheckDocs(tree), scripts.CheckState(tree),
	} {
		for _, f := range findings {
			t.Error(f)
		}
	}
}
