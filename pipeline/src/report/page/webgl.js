// Points by WebGL2: one buffer a column, one draw call a layer; a filter changes one byte a point.

const VERTEX = `#version 300 es
in float x;
in float y;
in uint topic;
in uint level;
uniform vec2 middle;
uniform vec2 scale;
uniform float size;
uniform uint layer;
uniform sampler2D colours;
uniform vec4 faint;
uniform vec4 outlierHit;
out vec4 colour;
out float radius;
void main() {
  bool outlier = topic == 65535u;
  // Layers: 0 outliers, 1 topics, 2 hits. A point that is not of this layer is moved out of sight.
  uint own = level == 3u ? 2u : (level == 1u || outlier ? 0u : 1u);
  if (level == 0u || own != layer) { gl_Position = vec4(2.0, 2.0, 0.0, 1.0); gl_PointSize = 0.0; return; }
  gl_Position = vec4((vec2(x, y) - middle) * scale, 0.0, 1.0);
  colour = level == 1u ? faint : level == 3u && outlier ? outlierHit : texelFetch(colours, ivec2(int(topic & 255u), int(topic >> 8u)), 0);
  float diameter = level == 3u ? max(size * 1.7, 5.0) : size;
  // A disc smaller than a pixel is fainter instead.
  colour.a *= min(diameter * diameter, 1.0);
  radius = max(diameter, 1.0) / 2.0;
  gl_PointSize = 2.0 * radius + 1.0;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 colour;
in float radius;
out vec4 pixel;
void main() {
  float distance = length(gl_PointCoord - 0.5) * (2.0 * radius + 1.0);
  float alpha = colour.a * clamp(radius + 0.5 - distance, 0.0, 1.0);
  pixel = vec4(colour.rgb * alpha, alpha);
}`;

class WebglPainter {
  /** Returns a painter, or null where WebGL2 is missing or drawn in software: there the other painter is faster. */
  static create(canvas, data) {
    // A canvas keeps its first kind of context, so the question is put to another one.
    const probe = document.createElement("canvas").getContext("webgl2");
    const name = probe?.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? probe?.RENDERER;
    const hardware = probe && !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(probe.getParameter(name));
    probe?.getExtension("WEBGL_lose_context")?.loseContext();
    const gl = hardware ? canvas.getContext("webgl2", { antialias: false, alpha: true }) : null;
    return gl ? new WebglPainter(gl, canvas, data) : null;
  }

  constructor(gl, canvas, data) {
    Object.assign(this, { gl, canvas, data });
    this.lost = false;
    canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); this.lost = true; });
    canvas.addEventListener("webglcontextrestored", () => {
      this.lost = false;
      this.build();
      this.setColours(this.colours);
      this.setLevels(this.levels);
      this.onrestored?.();
    });
    this.build();
  }

  build() {
    const { gl, data } = this;
    const program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    const names = ["middle", "scale", "size", "layer", "faint", "outlierHit", "colours"];
    this.uniforms = Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)]));
    const attribute = (name, values, bind) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      bind(place);
      return buffer;
    };
    attribute("x", data.x, (place) => gl.vertexAttribPointer(place, 1, gl.UNSIGNED_SHORT, true, 0, 0));
    attribute("y", data.y, (place) => gl.vertexAttribPointer(place, 1, gl.UNSIGNED_SHORT, true, 0, 0));
    attribute("topic", data.topic, (place) => gl.vertexAttribIPointer(place, 1, gl.UNSIGNED_SHORT, 0, 0));
    const none = new Uint8Array(data.rows);
    this.levelBuffer = attribute("level", none, (place) => gl.vertexAttribIPointer(place, 1, gl.UNSIGNED_BYTE, 0, 0));
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Takes `{ topics: [[r, g, b, a], ...], outlier, outlierHit, faint }`, channels in 0 to 255. */
  setColours(colours) {
    const { gl } = this;
    this.colours = colours;
    const texels = new Uint8Array(4 * 256 * 256);
    colours.topics.forEach((colour, i) => texels.set(colour, 4 * i));
    texels.set(colours.outlier, 4 * NO_TOPIC);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 256, 0, gl.RGBA, gl.UNSIGNED_BYTE, texels);
    for (const name of ["faint", "outlierHit"]) gl.uniform4fv(this.uniforms[name], colours[name].map((channel) => channel / 255));
  }

  setLevels(levels) {
    const { gl } = this;
    this.levels = levels;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.levelBuffer);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, levels);
  }

  draw(camera, size, ratio, hits) {
    const { gl, canvas, uniforms } = this;
    if (this.lost) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniforms.middle, camera.x, camera.y);
    gl.uniform2f(uniforms.scale, (2 * camera.scale) / camera.width, (2 * camera.scale) / camera.height);
    gl.uniform1f(uniforms.size, size * ratio);
    for (let layer = 0; layer < (hits ? 3 : 2); layer++) {
      gl.uniform1ui(uniforms.layer, layer);
      gl.drawArrays(gl.POINTS, 0, this.data.rows);
    }
  }
}
