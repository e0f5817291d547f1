// A container's output, kept in the form that container runtimes write (time, stream, F or P, line), so that the
// kubelet's own reader serves it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// lineBytes: longer lines are written in parts.
const lineBytes = 16 << 10

type log struct {
	mu   sync.Mutex
	file *os.File
	open []*logStream
}

func newLog(path string) (*log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(path)
	return &log{file: file}, err
}

func (l *log) stream(name string) *logStream {
	s := &logStream{log: l, name: name}
	l.open = append(l.open, s)
	return s
}

func (l *log) close() {
	for _, s := range l.open {
		s.flush()
	}
	l.file.Close()
}

// logStream takes what comes from one descriptor.
type logStream struct {
	log  *log
	name string
	rest []byte
}

func (s *logStream) Write(data []byte) (int, error) {
	s.rest = append(s.rest, data...)
	for {
		end := bytes.IndexByte(s.rest, '\n')
		switch {
		case end >= 0 && end <= lineBytes:
			s.line("F", s.rest[:end])
			s.rest = s.rest[end+1:]
		case len(s.rest) > lineBytes:
			s.line("P", s.rest[:lineBytes])
			s.rest = s.rest[lineBytes:]
		default:
			return len(data), nil
		}
	}
}

func (s *logStream) line(tag string, text []byte) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
	fmt.Fprintf(s.log.file, "%s %s %s %s\n", now, s.name, tag, text)
}

func (s *logStream) flush() {
	if len(s.rest) > 0 {
		s.line("F", s.rest)
		s.rest = nil
	}
}

// logTail is what a termination message shows of the log: at most 80 lines and 2048 bytes of its end.
func logTail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	lines = lines[max(0, len(lines)-80):]
	var text strings.Builder
	for _, line := range lines {
		if parts := strings.SplitN(line, " ", 4); len(parts) == 4 {
			text.WriteString(parts[3])
			if parts[2] == "F" {
				text.WriteByte('\n')
			}
		}
	}
	tail := text.String()
	return tail[max(0, len(tail)-2048):]
}
