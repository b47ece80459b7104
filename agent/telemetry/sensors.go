package telemetry

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// rescanEvery is how often the list of sensors is made anew: USB batteries and
// drivers come and go, but a directory walk at every sample would be the most
// expensive part of it.
const rescanEvery = time.Minute

// A reading outside of this is a sensor that is not connected or not ready
// (drivers answer −273 °C or 255 °C then), not a temperature.
const (
	coldestC = -55
	hottestC = 150
)

// sensors finds and reads what is under /sys/class. The zero value with sys set
// is ready.
type sensors struct {
	sys       string
	scannedAt time.Time
	// temps are files in thousandths of a degree; batteries are directories.
	temps     []string
	batteries []string
}

// boardChips are hwmon drivers that measure the processor or the board. Others
// (disks, radios, power supplies) say nothing about how hot the robot is.
var boardChips = [...]string{"coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz", "rp1_adc"}

func (s *sensors) scan(now time.Time) {
	if !s.scannedAt.IsZero() && now.Sub(s.scannedAt) < rescanEvery && !now.Before(s.scannedAt) {
		return
	}
	s.scannedAt = now
	s.temps, s.batteries = nil, nil
	for _, zone := range glob(s.sys, "class/thermal/thermal_zone*") {
		if kind := readText(zone, "type"); !strings.HasPrefix(kind, "iwlwifi") && !strings.Contains(kind, "battery") {
			s.temps = append(s.temps, filepath.Join(zone, "temp"))
		}
	}
	for _, chip := range glob(s.sys, "class/hwmon/hwmon*") {
		name := readText(chip, "name")
		for _, known := range boardChips {
			if name == known {
				s.temps = append(s.temps, glob(chip, "temp*_input")...)
			}
		}
	}
	for _, supply := range glob(s.sys, "class/power_supply/*") {
		// Scope "Device" is the battery of a mouse or a game pad.
		if readText(supply, "type") == "Battery" && readText(supply, "scope") != "Device" && readText(supply, "present") != "0" {
			s.batteries = append(s.batteries, supply)
		}
	}
}

// temperature is the hottest plausible reading, nil if there is none.
func (s *sensors) temperature(now time.Time) *float64 {
	s.scan(now)
	var hottest *float64
	for _, path := range s.temps {
		milli, ok := readNumber(filepath.Dir(path), filepath.Base(path))
		c := milli / 1000
		if ok && c > coldestC && c < hottestC && (hottest == nil || c > *hottest) {
			hottest = &c
		}
	}
	return hottest
}

// battery is the mean charge of the robot's batteries, nil if it has none.
func (s *sensors) battery(now time.Time) *float64 {
	s.scan(now)
	var sum, n float64
	for _, dir := range s.batteries {
		if percent, ok := charge(dir); ok {
			sum += min(100, max(0, percent))
			n++
		}
	}
	if n == 0 {
		return nil
	}
	mean := sum / n
	return &mean
}

// charge reads one battery: its own percentage, or what it holds of what it can.
func charge(dir string) (float64, bool) {
	if percent, ok := readNumber(dir, "capacity"); ok {
		return percent, true
	}
	for _, kind := range [...]string{"energy", "charge"} {
		now, ok1 := readNumber(dir, kind+"_now")
		full, ok2 := readNumber(dir, kind+"_full")
		if ok1 && ok2 && full > 0 {
			return 100 * now / full, true
		}
	}
	return 0, false
}

// glob finds nothing where there is nothing; a pattern here is never malformed.
func glob(dir, pattern string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	return found
}

// readText is the trimmed content, "" if it cannot be read.
func readText(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func readNumber(dir, name string) (float64, bool) {
	v, err := strconv.ParseFloat(readText(dir, name), 64)
	return v, err == nil
}
