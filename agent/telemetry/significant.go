package telemetry

import "math"

// What counts as news. Compared is always with the sample sent last, so slow
// drift adds up until it is told.
const (
	cpuPoints      = 5.0
	memoryShare    = 0.02
	diskShare      = 0.01
	temperatureC   = 1.0
	batteryPoints  = 1.0
	loadPoints     = 0.5
	rateShare      = 0.25
	rateFloorBytes = 10_000.0
)

// Significant reports whether next differs from prev, the sample sent last, by
// enough to tell people. It is pure. Uptime that grows is never news; uptime
// that shrank (a reboot) is.
func Significant(prev, next Sample) bool {
	return moved(prev.CPUPercent, next.CPUPercent, cpuPoints) ||
		prev.MemTotalBytes != next.MemTotalBytes ||
		moved(float64(prev.MemUsedBytes), float64(next.MemUsedBytes), atLeastOne(memoryShare*float64(next.MemTotalBytes))) ||
		prev.DiskTotalBytes != next.DiskTotalBytes ||
		moved(float64(prev.DiskUsedBytes), float64(next.DiskUsedBytes), atLeastOne(diskShare*float64(next.DiskTotalBytes))) ||
		sensorMoved(prev.TemperatureC, next.TemperatureC, temperatureC) ||
		sensorMoved(prev.BatteryPercent, next.BatteryPercent, batteryPoints) ||
		rateMoved(prev.NetRxBytesPerSec, next.NetRxBytesPerSec) ||
		rateMoved(prev.NetTxBytesPerSec, next.NetTxBytesPerSec) ||
		moved(prev.Load1, next.Load1, loadPoints) ||
		next.UptimeSeconds < prev.UptimeSeconds
}

func moved(a, b, by float64) bool { return math.Abs(a-b) >= by }

// atLeastOne keeps an unknown total (0) from making every sample news.
func atLeastOne(v float64) float64 { return max(1, v) }

func sensorMoved(a, b *float64, by float64) bool {
	if a == nil || b == nil {
		return a != b
	}
	return moved(*a, *b, by)
}

// rateMoved wants both a quarter and 10 kB/s: chatter around nothing is no news.
func rateMoved(a, b float64) bool {
	return moved(a, b, max(rateFloorBytes, rateShare*max(a, b)))
}
