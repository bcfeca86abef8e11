<?php

declare(strict_types=1);

// For those without composer.
spl_autoload_register(static function (string $class): void {
    if (strncmp($class, 'Vestnik\\', 8) === 0) {
        $file = __DIR__ . '/src/' . str_replace('\\', '/', substr($class, 8)) . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
