// How Go's net/http reads a request target: the path that a handler sees, the same cleaned, as file servers and routers
// do, and the pattern that ServeMux finds for it.
//
// One target in hex a line comes in; a JSON list of readings a line goes out, empty where the target is refused.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path"
)

func main() {
	mux := http.NewServeMux()
	mux.Handle("/private/", http.NotFoundHandler())
	mux.Handle("/", http.NotFoundHandler())
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		target, err := hex.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		found, _ := json.Marshal(readings(mux, target))
		out.Write(append(found, '\n'))
	}
}

func readings(mux *http.ServeMux, target []byte) []string {
	request := append(append([]byte("GET "), target...), []byte(" HTTP/1.1\r\nHost: gate.test\r\n\r\n")...)
	read, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		return []string{}
	}
	_, pattern := mux.Handler(read)
	return []string{read.URL.Path, path.Clean("/" + read.URL.Path), pattern}
}
