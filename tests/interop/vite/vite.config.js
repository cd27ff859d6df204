// In development Vite serves the page, and hands requests for the API and the login to the gate.
const gate = process.env.GATE ?? "http://127.0.0.1:8080";

export default {
  // As objects: for a mere URL Vite changes `Host`, and the gate serves the login at the host of `public_url` alone.
  server: { proxy: { "/app": { target: gate, ws: true }, "/auth": { target: gate } } },
};
