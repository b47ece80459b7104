package scripts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The house rules, on this repository. A failure names the place and what to do.

func TestEdges(t *testing.T)    { none(t, CheckEdges(repository(t), edges)) }
func TestBans(t *testing.T)     { none(t, CheckBans(repository(t), banned)) }
func TestPurity(t *testing.T)   { none(t, CheckPurity(repository(t), pure)) }
func TestSizes(t *testing.T)    { none(t, CheckSizes(repository(t))) }
func TestComments(t *testing.T) { none(t, CheckComments(repository(t))) }
func TestPackages(t *testing.T) { none(t, CheckPackages(repository(t), withoutDesign)) }
func TestTopLevel(t *testing.T) { none(t, CheckTopLevel(repository(t), topLevel)) }
func TestDocs(t *testing.T)     { none(t, CheckDocs(repository(t))) }
func TestNoState(t *testing.T)  { none(t, CheckState(repository(t))) }

// A rule for a package that was renamed away would hold for nobody.
func TestPurePackagesExist(t *testing.T) {
	tree := repository(t)
	for _, rule := range pure {
		if !slices.ContainsFunc(tree.Packages, func(p *Package) bool { return p.Path == rule.Path }) {
			t.Errorf("scripts/table.go: there is no package %s to be pure", rule.Path)
		}
	}
}

// Every reason is said: a table of bare names is a list of accidents.
func TestTablesSayWhy(t *testing.T) {
	for _, row := range edges {
		if strings.TrimSpace(row.Why) == "" {
			t.Errorf("scripts/table.go: the edge {%q, %q} has no reason", row.From, row.To)
		}
	}
	for _, row := range withoutDesign {
		if strings.TrimSpace(row.Why) == "" {
			t.Errorf("scripts/table.go: the exception %q has no reason", row.Path)
		}
	}
}

// repository parses this module. It takes about as long as listing it.
func repository(t *testing.T) *Tree {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Packages) < 5 || !slices.Contains(tree.TopLevel, "go.mod") {
		t.Fatalf("%s does not look like the module: %d packages", root, len(tree.Packages))
	}
	return tree
}

func none(t *testing.T, findings []Finding) {
	t.Helper()
	for _, finding := range findings {
		t.Error(finding)
	}
}
