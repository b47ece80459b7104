package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// knownKeys lists the full path of every table and key, from the toml tags.
func knownKeys() []string {
	var paths []string
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for field := range t.Fields() {
			path := prefix + field.Tag.Get("toml")
			paths = append(paths, path)
			if field.Type.Kind() == reflect.Struct {
				walk(path+".", field.Type)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	return paths
}

// unknownKey finds the first key of the file that no setting has and says what
// was probably meant; ok is false when there is none. The comparison is exact,
// where the library by itself would take "HTTP" for "http".
func unknownKey(keys toml.MetaData) (key toml.Key, message string, ok bool) {
	known := knownKeys()
	for _, key := range keys.Keys() {
		// String quotes a part that has a dot in it, so "mesh.mdns" as one
		// quoted key is not taken for mdns in the table mesh.
		if path := key.String(); !slices.Contains(known, path) {
			return key, suggestion(path, known), true
		}
	}
	return nil, "", false
}

func suggestion(path string, known []string) string {
	near := nearest(path, known)
	switch table := tableOf(near); {
	case near == "":
		return "unknown key; the keys here are " + strings.Join(siblings(path, known), ", ")
	case table == "" || table == tableOf(path):
		return fmt.Sprintf("unknown key; did you mean %q?", near)
	default:
		return fmt.Sprintf("unknown key; did you mean %q in the table [%s]?", lastPart(near), table)
	}
}

// siblings are the keys of the table that path is in, or of the top level.
func siblings(path string, known []string) []string {
	of := func(table string) (names []string) {
		for _, key := range known {
			if tableOf(key) == table {
				names = append(names, lastPart(key))
			}
		}
		return names
	}
	if names := of(tableOf(path)); len(names) > 0 {
		return names
	}
	return of("")
}

func tableOf(path string) string {
	table, _, ok := strings.Cut(path, ".")
	if !ok {
		return ""
	}
	return table
}

// nearest is the known key that was most probably meant, or "" when none is
// near. A right name in the wrong table counts as one mistake.
func nearest(path string, known []string) string {
	best, bestDistance := "", max(2, len(path)/3)+1
	for _, candidate := range known {
		d := min(distance(path, candidate), 1+distance(lastPart(path), lastPart(candidate)))
		if d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

func lastPart(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// distance is the Levenshtein distance in bytes, ignoring case and taking '-'
// for '_'. Both texts are cut at 64 bytes: no key is longer.
func distance(a, b string) int {
	a, b = folded(a), folded(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func folded(s string) string {
	return strings.ReplaceAll(strings.ToLower(s[:min(len(s), 64)]), "-", "_")
}
