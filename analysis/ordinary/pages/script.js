/*! harbour 1.2.3 | (c) 2026 | MIT License */
(function () {
  'use strict';
  var cache = {}, timer = null;
  function load(url, done) {
    if (cache[url] !== undefined) { return done(null, cache[url]); }
    var request = new XMLHttpRequest();
    request.open('GET', url, true);
    request.onload = function () { cache[url] = this.responseText; done(null, this.responseText); };
    request.onerror = function (e) { console.log('network error', e); };
    request.send();
  }
  timer = setTimeout(function () { load('/api/v3/lines?limit=20&offset=0', function (err, text) { return err || text; }); }, 1000);
  window.harbour = { load: load, regexp: /^[a-z0-9_\-.]+@[a-z0-9\-]+\.[a-z]{2,}$/i };
}());
